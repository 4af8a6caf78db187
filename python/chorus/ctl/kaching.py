"""`chorusctl dev kaching`: the reference server of KACHING, and what its operator asks it."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from chorus.ctl import serving
from chorus.ctl.problems import CtlError
from chorus.ctl.terminal import say, say_json
from chorus.dev.kaching.server import ADMIN, KachingServer

TIMEOUT_S = 10.0


def serve(arguments: Namespace) -> int:
    """Serves until it is interrupted. Raises CtlError for a port that is taken."""
    folder = _folder(arguments)
    return serving.serve(
        lambda: KachingServer(folder, port=arguments.port),
        arguments.port,
        lambda server: (
            {"url": server.url, "public_key": server.public_keys, "data": str(folder)},
            (
                f"KACHING answers at {server.url}; its state lies in {folder}.",
                "An agent uses it with these settings:",
                f"  CHORUS_KACHING_URL={server.url}",
                f"  CHORUS_KACHING_PUBLIC_KEY={server.public_keys}",
            ),
        ),
        as_json=arguments.json,
    )


def create(arguments: Namespace) -> int:
    """`license create`."""
    now = time.time()
    made: dict[str, Any] = {
        "id": arguments.id,
        "cluster_id": arguments.cluster,
        "gives_secret": not arguments.keep_secret,
        "max_agents": arguments.max_agents,
        "lease_ttl_s": arguments.lease,
        "not_before": now + arguments.starts if arguments.starts is not None else 0.0,
        "expires": now + arguments.expires if arguments.expires is not None else None,
    }
    if arguments.secret is not None:
        made["cluster_secret"] = arguments.secret
    if arguments.permission:
        made["permissions"] = arguments.permission
    return _print(arguments, _ask(arguments, "POST", "licenses", made))


def licenses(arguments: Namespace) -> int:
    """`license list`."""
    return _print_all(arguments, _ask(arguments, "GET", "licenses"))


def set_state(arguments: Namespace) -> int:
    """`license suspend`, `resume` and `revoke`."""
    path = f"licenses/{quote(arguments.id, safe='')}/{arguments.verb}"
    return _print(arguments, _ask(arguments, "POST", path))


def leases(arguments: Namespace) -> int:
    """`lease list`."""
    return _print_all(arguments, _ask(arguments, "GET", "leases"))


def key(arguments: Namespace) -> int:
    """`key show`."""
    return _print_key(arguments, _ask(arguments, "GET", "key"))


def rotate(arguments: Namespace) -> int:
    """`key rotate`."""
    return _print_key(arguments, _ask(arguments, "POST", "key/rotate"))


def fault(arguments: Namespace) -> int:
    """`fault`."""
    try:
        claims = json.loads(arguments.claims)
    except ValueError:
        raise CtlError('--claims: give a JSON object such as {"max_agents": 99}') from None
    said = {
        "fault": arguments.fault,
        "times": arguments.times,
        "delay_s": arguments.delay,
        "status": arguments.status,
        "garbage": arguments.kind,
        "claims": claims,
    }
    return _print(arguments, _ask(arguments, "PUT", "fault", said))


def _folder(arguments: Namespace) -> Path:
    if given := getattr(arguments, "data", None):
        return Path(given).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "chorus" / "kaching"


def _ask(arguments: Namespace, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Asks the server that runs on the folder. Raises CtlError with its answer when it refuses."""
    file = _folder(arguments) / ADMIN
    try:
        admin = json.loads(file.read_text())
        headers = {"Authorization": f"Bearer {admin['token']}"}
        url = f"{admin['url']}/admin/{path}"
        answer = httpx.request(method, url, json=body, headers=headers, timeout=TIMEOUT_S, trust_env=False)
    except (OSError, ValueError, KeyError):
        raise CtlError(
            f"{file} names no server: start one with chorusctl dev kaching, or name its folder with --data"
        ) from None
    except httpx.HTTPError as error:
        raise CtlError(f"the server of {file} does not answer ({error}): start it again") from None
    said: dict[str, Any] = answer.json()
    if answer.is_error:
        raise CtlError(str(said.get("detail")))
    return said


def _print(arguments: Namespace, said: dict[str, Any]) -> int:
    if arguments.json:
        say_json(said)
    else:
        say("  ".join(f"{name}={_text(value)}" for name, value in said.items()))
    return 0


def _print_all(arguments: Namespace, said: dict[str, Any]) -> int:
    if arguments.json:
        say_json(said)
        return 0
    for item in said["items"]:
        _print(arguments, item)
    return 0


def _print_key(arguments: Namespace, said: dict[str, Any]) -> int:
    if arguments.json:
        say_json(said)
    else:
        say(f"CHORUS_KACHING_PUBLIC_KEY={said['public_key']}")
    return 0


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

"""The core's configuration as Python writes it: the JSON that `chorus._core.Core.start` reads."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from chorus.hub.services import Service


def core_config(
    *,
    data_dir: Path,
    hub: Path,
    cluster_secret: bytes,
    listen: Sequence[str] = (),
    bootstrap: Sequence[str] = (),
    mdns: bool = False,
    dht: bool = True,
    dht_cache_bytes: int | None = None,
    agent_id: str | None = None,
    role: str | None = None,
    role_keys_file: Path | None = None,
    role_grants: Sequence[tuple[str, str]] = (),
    previous_secrets: Sequence[bytes] = (),
    threads: int | None = None,
    shhh_rules: str | None = None,
    entry_types: Collection[str] | None = None,
    members_only: bool = False,
    services: Mapping[str, Service] | None = None,
) -> str:
    """The JSON text for `Core.start`; what is None is left to the core.

    `members_only`: strangers are served only what joining takes, also before there is a mesh. `services`:
    which process may offer what, and what of it peers may ask for; without it any process may offer anything.
    """
    config: dict[str, Any] = {
        "data_dir": str(data_dir),
        "hub": str(hub),
        "cluster_secret_base64": base64.b64encode(cluster_secret).decode(),
        "previous_secrets_base64": [base64.b64encode(secret).decode() for secret in previous_secrets],
        "listen": list(listen),
        "bootstrap": list(bootstrap),
        "mdns": mdns,
        "dht": dht,
        "dht_cache_bytes": dht_cache_bytes,
        "agent_id": agent_id or None,
        "role": role or None,
        "role_keys_file": None if role_keys_file is None else str(role_keys_file),
        "role_grants": [list(grant) for grant in role_grants],
        "threads": threads,
        "shhh_rules": shhh_rules or None,
        "entry_types": None if entry_types is None else sorted(entry_types),
        "members_only": members_only,
        "services": None
        if services is None
        else {
            name: {"process": service.process, "peers": sorted(service.peers)}
            for name, service in services.items()
        },
    }
    return orjson.dumps({name: value for name, value in config.items() if value is not None}).decode()


def multiaddr(host: str, port: int) -> str:
    """The multiaddr of a TCP port on an IP address."""
    return f"/ip{'6' if ':' in host else '4'}/{host}/tcp/{port}"

"""The filtering proxy in deploy/ lists every setting that the executor sends, and no other."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docker.api.exec_api import ExecApiMixin

from chorus.executor.backend import Limits
from chorus.executor.docker.container import (
    LABEL_BOOT,
    LABEL_PEER,
    LABEL_TASK,
    SECCOMP,
    USER,
    configuration,
    resource_limits,
    session_command,
)

JUDGE = (Path(__file__).parents[3] / "deploy" / "docker-proxy" / "judge.conf").read_text()
LIMITS = Limits(cpus=1.0, memory_bytes=1 << 27, pids=32, disk_bytes=1 << 26)


def listed(call: str) -> set[str]:
    """The names of the first rule for a call."""
    found = re.search(rf'^ +\'~\(\?s\)\^{call} \.\*"\(\?!\(\?:(.*)\)"\)\(\?:\[', JUDGE, re.MULTILINE)
    assert found, f"no rule for {call}"
    labels = found[1].replace(r"chorus\.(?:peer|boot|task)", f"{LABEL_PEER}|{LABEL_BOOT}|{LABEL_TASK}")
    return set(labels.replace("\\.", ".").split("|"))


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def test_a_sandbox() -> None:
    labels = {LABEL_PEER: "p", LABEL_BOOT: "b", LABEL_TASK: "t"}
    assert listed("create") == set(keys(configuration("image", LIMITS, labels)))


def test_its_limits() -> None:
    assert listed("update") == set(resource_limits(LIMITS))


def test_its_session() -> None:
    sent: dict[str, Any] = {}

    class Recorder(ExecApiMixin):
        _version = "1.41"
        _general_configs: dict[str, str] = {}  # noqa: RUF012

        def _url(self, *parts: str) -> str:
            return "/".join(parts)

        def _post_json(self, url: str, data: dict[str, Any]) -> None:
            sent.update(data)

        def _result(self, response: object, json: bool) -> dict[str, str]:
            return {"Id": "e"}

    Recorder().exec_create("c" * 64, session_command(30.0), stdin=True, user=USER)
    assert listed("exec") == set(sent)


def test_its_system_calls() -> None:
    """The profile's hash as nginx's secure_link computes it, of the profile as it stands in the body."""
    found = re.search(r"^secure_link ([A-Za-z0-9_-]+);$", JUDGE, re.MULTILINE)
    digest = hashlib.md5(json.dumps(SECCOMP)[1:-1].encode()).digest()
    assert found
    assert found[1] == base64.urlsafe_b64encode(digest).decode().rstrip("=")

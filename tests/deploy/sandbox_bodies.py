"""Bodies of `containers/create` and what follows it: as an agent sends them, and changed."""

from __future__ import annotations

import copy
import json
from typing import Any

from chorus.executor.docker.container import USER, configuration, resource_limits, session_command
from chorus.testing.sandbox_contract import SMALL

from .conftest import LEASE_S, PREFIX, SANDBOX


def sandbox(peer: str = PREFIX, image: str = SANDBOX) -> dict[str, Any]:
    """The whole configuration of a sandbox."""
    labels = {"chorus.peer": peer, "chorus.boot": "b", "chorus.task": ""}
    return copy.deepcopy(configuration(image, SMALL, labels))


def session(container: str) -> dict[str, Any]:
    """The exec of a sandbox's session."""
    return {
        "Container": container,
        "User": USER,
        "Privileged": False,
        "Tty": False,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Cmd": session_command(LEASE_S),
    }


def limits() -> dict[str, Any]:
    """What a running sandbox may still be given."""
    return resource_limits(SMALL)


def with_host(**more: Any) -> dict[str, Any]:
    """A sandbox with other or more settings in its HostConfig."""
    config = sandbox()
    config["HostConfig"].update(more)
    return config


def with_text(before: str, after: str) -> bytes:
    """A sandbox with a piece of its JSON in another form."""
    text = json.dumps(sandbox())
    assert before in text
    return text.replace(before, after, 1).encode()

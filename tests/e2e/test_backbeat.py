"""Telemetry of real agents, as the reference server of BACKBEAT hears it; work goes on without it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from .conftest import GENEROUS_S, Agent, Mesh, brought_up

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]


@pytest.fixture
def server() -> Iterator[httpx.Client]:
    """The server's admin interface."""
    command = [sys.executable, "-m", "chorus.ctl", "dev", "backbeat", "--json", "--tempo", "120"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    headers = {"Authorization": f"Bearer {said['token']}"}
    with httpx.Client(base_url=said["url"], headers=headers, timeout=60, trust_env=False) as admin:
        yield admin
    process.kill()
    process.wait()


def seen(server: httpx.Client, path: str) -> list[dict[str, Any]]:
    found = server.get("/admin/seen").json()["seen"]
    assert all(one["fits"] for one in found), [one for one in found if not one["fits"]]
    return [one["body"] for one in found if one["path"].endswith(path)]


def until(true: Callable[[], Any], what: str) -> None:
    ends = time.monotonic() + GENEROUS_S
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.1)


@pytest.fixture
def told(needs: None, server: httpx.Client) -> Iterator[Mesh]:
    """Two agents that talk to the server."""
    more = {"CHORUS_BACKBEAT_ENABLED": "true", "CHORUS_BACKBEAT_ENDPOINT": str(server.base_url).rstrip("/")}
    yield from brought_up(2, **more)


def done(mesh: Mesh, agent: Agent) -> str:
    """A task that was run."""
    task = {"title": "told", "language": "python", "commands": ["true"]}
    task_id = str(agent.post("/api/v1/tasks", task).json()["task_id"])
    mesh.ctl("wait", task_id)
    return task_id


def health(agent: Agent) -> Any:
    return httpx.get(f"{agent.health}/health", trust_env=False).json()


OPERATIONS = {
    "p2p_start": ["starting", "discovering"],
    "dht_bootstrap": ["waiting_for_peer", "querying"],
    "task": ["waiting", "pulling", "running", "publishing"],
}


def test_operations_are_told_and_work_needs_no_server(told: Mesh, server: httpx.Client) -> None:
    first, second = told.agents
    task_id = done(told, first)

    def ended(kind: str) -> list[dict[str, Any]]:
        said = seen(server, "operations")
        return [one for one in said if one["kind"] == kind and one["outcome"]]

    until(lambda: all(ended(kind) for kind in OPERATIONS), "not all operations are told")
    phases = {kind: [phase["name"] for phase in ended(kind)[0]["phases"]] for kind in OPERATIONS}
    assert phases == OPERATIONS
    until(lambda: len({one["agent_id"] for one in ended("election")}) == 2, "no election is told")
    assert {"leading", "following"} <= {one["outcome"] for one in ended("election")}
    until(lambda: ("completed", task_id) in claims(server), "the task's end is not claimed")
    assert ("idle", None) in claims(server)
    assert health(first)["backbeat"]["source"] == "pulse", health(first)["backbeat"]

    server.post("/admin/fault", json={"fault": "silent"}).raise_for_status()
    done(told, second)
    until(lambda: health(first)["backbeat"]["source"] == "own", "no own beat")
    assert health(first)["ready"], health(first)


def claims(server: httpx.Client) -> set[tuple[str, str | None]]:
    return {(claim["state"], claim.get("task_id")) for claim in seen(server, "status")}

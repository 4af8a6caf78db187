"""Telemetry of real agents, as the reference server of BACKBEAT hears it; work goes on without it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from chorus.dev import Call, Reply, Script
from chorus.dev.backbeat_frames import Pulse
from chorus.testing.nats import Nats

from .conftest import GENEROUS_S, Agent, Mesh, brought_up
from .goal_runs import Runs, with_model

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


STEPS = (
    Reply(calls=(Call(tool="write", arguments={"path": "done.txt", "text": "x\n"}),)),
    Reply(calls=(Call(tool="finish", arguments={"summary": "It is written."}),)),
)
SCRIPT = Script.model_validate({"plan": "Write it at once.", "replies": STEPS, "discuss": [], "advise": ""})


@pytest.fixture
def told(needs: None, server: httpx.Client) -> Iterator[Runs]:
    """Two agents with a model that talk to the server."""
    more = {"CHORUS_BACKBEAT_ENABLED": "true", "CHORUS_BACKBEAT_ENDPOINT": str(server.base_url).rstrip("/")}
    with with_model(2, SCRIPT, **more) as runs:
        yield runs


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
    "hmmm_session": ["discussing", "recording"],
}


def test_operations_are_told_and_work_needs_no_server(told: Runs, server: httpx.Client) -> None:
    mesh = told.mesh
    first, second = mesh.agents
    task_id = done(mesh, first)
    goal = told.ask("a goal whose plan is talked over")
    assert goal.state == "completed", goal.task

    def ended(kind: str) -> list[dict[str, Any]]:
        said = seen(server, "operations")
        return [one for one in said if one["kind"] == kind and one["outcome"]]

    until(lambda: all(ended(kind) for kind in OPERATIONS), "not all operations are told")
    phases = {kind: [phase["name"] for phase in ended(kind)[0]["phases"]] for kind in OPERATIONS}
    assert phases == OPERATIONS
    # The owner of the plan tells of its discussion.
    [talk] = ended("hmmm_session")
    assert (talk["agent_id"], talk["outcome"]) == (goal.task["agent_id"], "unanimous")
    assert talk["duration_s"] >= max(phase["duration_s"] for phase in talk["phases"])
    until(lambda: len({one["agent_id"] for one in ended("election")}) == 2, "no election is told")
    assert {"leading", "following"} <= {one["outcome"] for one in ended("election")}
    until(lambda: ("completed", task_id) in claims(server), "the task's end is not claimed")
    assert ("idle", None) in claims(server)
    assert health(first)["backbeat"]["source"] == "pulse", health(first)["backbeat"]

    server.post("/admin/fault", json={"fault": "silent"}).raise_for_status()
    done(mesh, second)
    until(lambda: health(first)["backbeat"]["source"] == "own", "no own beat")
    assert health(first)["ready"], health(first)


def claims(server: httpx.Client) -> set[tuple[str, str | None]]:
    return {(claim["state"], claim.get("task_id")) for claim in seen(server, "status")}


@pytest.fixture
def nats_server(needs: None) -> Iterator[Nats]:
    with Nats() as started:
        yield started


@pytest.fixture
def over_nats(nats_server: Nats) -> Iterator[Mesh]:
    """An agent that talks to a nats-server."""
    more = {"CHORUS_BACKBEAT_ENABLED": "true", "CHORUS_BACKBEAT_ENDPOINT": nats_server.url}
    yield from brought_up(1, **more)


async def test_the_same_over_nats(over_nats: Mesh, nats_server: Nats) -> None:
    nats = pytest.importorskip("nats", reason="nats-py is not installed: pip install 'chorus-agent[nats]'")
    [agent] = over_nats.agents
    cluster = agent.get("/api/v1/status").json()["cluster_id"]
    taken: list[tuple[str, Any]] = []

    async def take(message: Any) -> None:
        taken.append((message.subject, json.loads(message.data)))

    async def beat(client: Any) -> None:
        """A beat every half second, as BACKBEAT has them."""
        pulse = Pulse(cluster, 120)
        while True:
            frame = pulse.beat("none", time.time()).partition(b"data: ")[2].strip()
            await client.publish(f"backbeat.{cluster}.beat", frame)
            await asyncio.sleep(0.5)

    async def backbeat_side() -> tuple[Any, asyncio.Task[None]]:
        client = await nats.connect(nats_server.url)
        for subject in ("status", "operation"):
            await client.subscribe(f"backbeat.{cluster}.{subject}", cb=take)
        await client.flush()
        return client, asyncio.create_task(beat(client))

    def ran(task_id: str) -> bool:
        """Whether both subjects told of the task's end."""
        claimed = any(
            subject.endswith(".status") and (one["state"], one.get("task_id")) == ("completed", task_id)
            for subject, one in taken
        )
        return claimed and any(
            subject.endswith(".operation")
            and (one["outcome"], one["subject"].get("task_id")) == ("completed", task_id)
            for subject, one in taken
        )

    async def work() -> str:
        return await asyncio.to_thread(done, over_nats, agent)

    async def soon(true: Callable[[], Any], what: str) -> None:
        await asyncio.to_thread(until, true, what)

    client, beating = await backbeat_side()
    await soon(lambda: health(agent)["backbeat"]["source"] == "pulse", "not in step")
    first = await work()
    await soon(lambda: ran(first), "the task is not told")
    beating.cancel()
    await client.close()
    # Work goes on while the server is away, and is told again once it is back.
    nats_server.kill()
    await soon(lambda: health(agent)["backbeat"]["source"] == "own", "no own beat")
    await work()
    nats_server.start()
    client, beating = await backbeat_side()
    await soon(lambda: health(agent)["backbeat"]["source"] == "pulse", "not in step again")
    second = await work()
    await soon(lambda: ran(second), "the task is not told")
    beating.cancel()
    await client.close()

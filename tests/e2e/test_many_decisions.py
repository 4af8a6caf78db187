"""Ten thousand decision records among three real agents: all verified, and a new leader agrees with the old.

The tasks are real and run; the records about them are made here, with the agents' own keys over their hubs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from chorus import decisions
from chorus.executor.proposals import propose
from chorus.hub import Hub

from .conftest import Agent, Mesh
from .test_decisions import ran
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

RECORDS = 10_000
TASKS = 24
# Publishing, a leader's death and the checks, beside other work.
PATIENCE_S = 1800.0
WORDS = ("parse", "index", "measure", "translate", "compress", "count", "sort", "draw")
THINGS = ("books", "rivers", "logs", "images", "words", "roads", "songs")


def title(number: int) -> str:
    word, thing = WORDS[number % len(WORDS)], THINGS[number // len(WORDS) % len(THINGS)]
    return f"{word} the {thing} of place {number}"


async def published(agent: Agent, attempts: list[dict[str, Any]], count: int) -> None:
    """So many outcomes of discussions about these attempts, by the agent that executed them."""
    async with await Hub.connect(Path(agent.run_dir) / "hub.sock", "test", retry_for=60) as hub:

        async def enter(type: str, body: dict[str, Any]) -> None:
            outcome = await propose(hub, type, body)
            assert outcome is not None
            assert outcome.accepted, outcome.reason

        async def one(number: int) -> None:
            about = attempts[number % len(attempts)]
            decided = {
                "outcome": "agreed",
                "reason": "",
                "session_id": f"s{number}",
                "participants": [hub.peer_id],
                "transcript_sha256": "",
            }
            record = decisions.build(
                kind="hmmm_outcome", peer=hub.peer_id, agent_id=agent.agent_id, role="", mesh="m",
                project=about["project"], task_id=about["task_id"], attempt=1,
                title=title(number), summary=f"place {number} was talked over", inputs=decisions.inputs(),
                decided=decided, created_at=about["created_at"],
            )  # fmt: skip
            encoded = await decisions.redact_and_sign(hub, record)
            await decisions.publish(hub, encoded, record, enter=enter)

        for first in range(0, count, 32):
            await asyncio.gather(*(one(number) for number in range(first, min(first + 32, count))))


async def indexed(agents: list[Agent]) -> None:
    """Every agent's index has all that the table lists."""
    for agent in agents:
        async with await Hub.connect(Path(agent.run_dir) / "hub.sock", "test", retry_for=60) as hub:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    counts = (await hub.call_service("coordinator", "health")).head["index"]
                    if counts["pending"] == 0 and counts["documents"] >= RECORDS + TASKS:
                        break
                    await asyncio.sleep(0.5)


def contexts(agent: Agent, tasks: list[str]) -> tuple[set[str], list[Any]]:
    """Which leaders chose, and what for each task."""
    answers = [agent.get("/api/v1/context", task=task_id) for task_id in tasks]
    assert [answer.status_code for answer in answers] == [200] * len(tasks)
    said = [answer.json() for answer in answers]
    return {one.pop("by") for one in said}, said


def test_all_verify_and_a_new_leader_gives_the_same_context(mesh: Mesh) -> None:
    for number in range(TASKS):
        ran(mesh, title(number), project=THINGS[number % 3])
    rows = [mesh.agents[0].get(f"/api/v1/tasks/{task['task_id']}").json() for task in mesh.tasks()]
    of = {agent: [row for row in rows if row["agent_id"] == agent.agent_id] for agent in mesh.agents}
    working = {agent: attempts for agent, attempts in of.items() if attempts}
    share = -(-RECORDS // len(working))

    async def publish() -> None:
        await asyncio.gather(*(published(agent, some, share) for agent, some in working.items()))
        await indexed(mesh.agents)

    asyncio.run(publish())
    done = mesh.ctl("decision", "verify", "--all", "--json", timeout_s=PATIENCE_S)
    assert json.loads(done.stdout) == {
        "genuine": share * len(working) + TASKS,
        "unreadable": 0,
        "not_genuine": 0,
    }
    tasks = [row["task_id"] for row in rows]
    leaders = {agent.get("/api/v1/election").json()["leader"] for agent in mesh.agents}
    old = next(agent for agent in mesh.agents if leaders == {agent.agent_id})
    left = [agent for agent in mesh.agents if agent is not old]
    before = [contexts(agent, tasks) for agent in mesh.agents]
    assert all(len(answer["items"]) > 1 for answer in before[0][1])
    assert before[0] == before[1] == before[2]
    os.kill(old.pid, signal.SIGKILL)
    for agent in left:
        until(
            lambda agent=agent: agent.get("/api/v1/election").json()["leader"] not in (None, "", old.agent_id)
        )
        by, said = contexts(agent, tasks)
        assert by.isdisjoint(before[0][0])
        assert said == before[0][1]

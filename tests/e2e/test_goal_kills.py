"""Processes die by kill -9 during a goal: it ends once, no call is run twice, and the patch is whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chorus.dev import Script, policy
from chorus.wire.ids import new_id

from .conftest import GENEROUS_S, Agent
from .goal_runs import Gate, Run, Runs, called_once, with_model
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

GOAL = "Count to four in steps.txt"
STEPS = 4
# Each step leaves one line behind: a call that is run twice leaves two.
EXPECTED = "".join(f"+{number}\n" for number in range(1, STEPS + 1))
SCRIPT = Script.model_validate(
    {
        "goal": GOAL,
        "replies": [
            *(
                {"calls": [{"tool": "run", "arguments": {"command": f"echo {number} >> steps.txt"}}]}
                for number in range(1, STEPS + 1)
            ),
            {"calls": [{"tool": "finish", "arguments": {"summary": "Counted."}}]},
        ],
    }
)
CHECK = f"test \"$(tr -d '\\n' < steps.txt)\" = {''.join(map(str, range(1, STEPS + 1)))}"


@pytest.fixture(scope="module")
def lone(needs: None) -> Iterator[Runs]:
    with with_model(1, SCRIPT) as made:
        yield made


@pytest.fixture(scope="module")
def three(needs: None) -> Iterator[Runs]:
    with with_model(3, SCRIPT) as made:
        yield made


def submitted(runs: Runs, at: int = 0) -> str:
    return runs.submit({"task_id": new_id(), "title": GOAL, "checks": [CHECK], "max_attempts": 10}, at=at)


def kill(agent: Agent, name: str) -> None:
    """Kills a process, and returns when another has its place."""
    pid = until(lambda: agent.processes().get(name))
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.processes().get(name, pid) != pid)


def whole(run: Run) -> list[dict[str, Any]]:
    """The journal of a run that ended well, and once."""
    assert (run.state, run.ended_by) == ("completed", "finished"), run.task
    assert [attempt["state"] for attempt in run.task["attempts"]].count("completed") == 1
    added = [line for line in run.patch().decode().splitlines(keepends=True) if line.startswith("+")]
    assert "".join(line for line in added if not line.startswith("+++")) == EXPECTED
    records = run.transcript()
    called_once(records)
    return records


def begun(run: Run) -> list[dict[str, Any]]:
    """Its attempts, less those that were declined because `mind` was not back yet."""
    return [attempt for attempt in run.task["attempts"] if attempt["state"] != "declined"]


def journal_of(agent: Agent, task_id: str) -> Path | None:
    """The journal of the attempt that runs, on the agent's disk."""
    found = (agent.data_dir / "tasks" / task_id).glob("*/transcript.jsonl")
    return max(found, key=lambda path: int(path.parent.name), default=None)


def length(agent: Agent, task_id: str) -> int:
    path = journal_of(agent, task_id)
    return path.read_bytes().count(b"\n") if path is not None else 0


def killed_after(runs: Runs, records: int) -> Run:
    """A run whose `mind` is killed once its journal has so many records."""
    agent = runs.mesh.agents[0]
    pid = until(lambda: agent.processes().get("mind"))
    task_id = submitted(runs)
    deadline = time.monotonic() + GENEROUS_S
    while length(agent, task_id) < records:
        assert time.monotonic() < deadline
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.processes().get("mind", pid) != pid)
    return runs.ended(task_id)


def test_mind_is_killed_between_every_two_writes_of_the_journal(lone: Runs) -> None:
    records = whole(lone.ended(submitted(lone)))
    for number in range(1, len(records)):
        run = killed_after(lone, number)
        again = whole(run)
        # The run went on: it did not begin anew.
        assert len(begun(run)) == 1
        replies = [record for record in again if record["kind"] == "reply"]
        assert len(replies) >= len([record for record in records if record["kind"] == "reply"])


@pytest.mark.parametrize("place", range(1, STEPS + 1))
@pytest.mark.parametrize("victim", ["mind", "api", "coordinator", "executor"])
def test_a_process_dies_while_the_model_thinks(lone: Runs, victim: str, place: int) -> None:
    agent = lone.mesh.agents[0]
    gone = threading.Event()

    def die() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(kill, agent, victim).result()
        gone.set()

    lone.model.policy = Gate(policy("oracle", [SCRIPT]), place, die)
    run = lone.ended(submitted(lone))
    assert gone.is_set()
    whole(run)
    # Only the executor's death ends an attempt.
    assert len(begun(run)) == (2 if victim == "executor" else 1)


def test_the_leaders_agent_dies_during_a_run(three: Runs) -> None:
    leader_id = three.mesh.agents[0].get("/api/v1/election").json()["leader"]
    number, leader = next(
        (n, agent) for n, agent in enumerate(three.mesh.agents) if agent.agent_id == leader_id
    )
    gone = threading.Event()

    def die() -> None:
        for pid in leader.processes().values():
            os.kill(pid, signal.SIGKILL)
        gone.set()

    three.model.policy = Gate(policy("oracle", [SCRIPT]), 2, die)
    rest = (number + 1) % len(three.mesh.agents)
    task_id = submitted(three, at=rest)
    run = three.ended(task_id, at=rest)
    assert gone.is_set()
    whole(run)

"""Under a stream of tasks each process dies by kill -9, then supervisord, then the leader's whole agent."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.follow import follow
from chorus.wire.ids import new_id

from .conftest import Agent, Mesh
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

TASKS = 30
VICTIMS = ("node", "election", "coordinator", "executor", "api", "supervisord")


def target(mesh: Mesh, first: int) -> Target:
    agents = [*mesh.agents[first:], *mesh.agents[:first]]
    return Target(tuple(Endpoint(agent.api, agent.token, agent.agent_id) for agent in agents))


def stream(mesh: Mesh, acknowledged: list[str]) -> list[str]:
    """Submits the tasks from all sides; returns the state each ended in."""

    def one(number: int) -> str:
        with Client(target(mesh, number % len(mesh.agents))) as client:
            task = {
                "task_id": new_id(),
                "title": f"n{number}",
                "commands": ["sleep 0.5; echo done"],
                "max_attempts": 20,
            }
            client.submit(task, None)
            acknowledged.append(str(task["task_id"]))
            end = list(follow(client, str(task["task_id"])))[-1]
            return str(end.data["state"])

    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(one, range(TASKS)))


def answers(agent: Agent) -> bool:
    try:
        return agent.get("/api/v1/status").status_code == 200
    except httpx.TransportError:
        return False


def check(mesh: Mesh, acknowledged: list[str], states: list[str]) -> None:
    assert Counter(states) == {"completed": TASKS}
    for agent in mesh.agents:
        for task_id in acknowledged:

            def ended(agent: Any = agent, task_id: str = task_id) -> Any:
                answer = agent.get(f"/api/v1/tasks/{task_id}")
                return answer.status_code == 200 and answer.json()["state"] == "completed" and answer.json()

            task = until(ended)
            # Counted once: a single attempt of all has the task's result.
            assert [a["state"] for a in task["attempts"]].count("completed") == 1


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_dies_and_nothing_is_lost(mesh: Mesh, victim: str) -> None:
    acknowledged: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(stream, mesh, acknowledged)
        for agent in mesh.agents:
            seen = len(acknowledged)
            until(lambda seen=seen: len(acknowledged) > seen or streaming.done())
            pid = until(lambda agent=agent: agent.processes().get(victim))
            os.kill(pid, signal.SIGKILL)
            until(lambda agent=agent, pid=pid: agent.processes().get(victim, pid) != pid)
            # In turn: the next agent's dies once this one is whole again.
            until(lambda agent=agent: answers(agent))
        states = streaming.result()
    check(mesh, acknowledged, states)


def test_the_leaders_agent_dies_and_comes_back(mesh: Mesh) -> None:
    acknowledged: list[str] = []
    leader_id = mesh.agents[0].get("/api/v1/election").json()["leader"]
    leader = next(agent for agent in mesh.agents if agent.agent_id == leader_id)
    rest = Mesh([agent for agent in mesh.agents if agent is not leader], mesh.environ)
    with ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(stream, rest, acknowledged)
        until(lambda: len(acknowledged) > 3)
        os.kill(leader.pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{leader.pid}").exists())
        states = streaming.result()
    check(rest, acknowledged, states)
    mesh.down()
    mesh.up()
    check(mesh, acknowledged, states)

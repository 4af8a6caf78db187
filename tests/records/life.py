"""One life of an agent that publishes a result, in a process of its own, with a real core and coordinator.

`python life.py FOLDER STEP` kills itself with SIGKILL right after its STEP-th step (an injected fault; 0:
never) and otherwise says, when everything is published, what is there. Run by `test_publishing.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from mesh import TIMING, Agent, until

from chorus import decisions
from chorus.core import Log
from chorus.executor import publisher as publishing
from chorus.executor.outbox import Item, Outbox
from chorus.executor.publisher import Publisher
from chorus.executor.room import Room
from chorus.hub import Hub
from chorus.process import Assignments
from chorus.process.logs import Logger
from chorus.wire.ids import new_id

FACTS: dict[str, Any] = {
    "task": {"title": "count", "project": "p"}, "source_sha256": "", "source_kind": "", "image": "i",
    "image_digest": "", "mesh": "m",
}  # fmt: skip
# What the publisher does to the world; whatever lies between two of them can be cut off.
STEPS = ("call_service", "redact_json", "sign", "log_info", "dht_put", "publish", "log_append")


def result_of(task_id: str) -> dict[str, Any]:
    """The body of a result."""
    return {
        "task_id": task_id, "attempt": 1, "outcome": "completed", "reason": "", "exit_code": 0,
        "summary": "s",
        "commands": [{"command": "true", "exit_code": 0, "duration_s": 0.1}], "artifacts": [], "usage": {},
        "ended_by": "exit", "decision": None, "timings": {"pulling_s": 0.0, "running_s": 0.1},
    }  # fmt: skip


async def prepared(agent: Agent) -> None:
    """A claimed task whose result is in the outbox, in the agent's first life."""
    outbox = Outbox(agent.settings.paths.executor_db)
    marker = agent.folder / "task"
    if not marker.exists():
        task_id = await agent.submit(title="count", commands=["true"], project="p")
        await until(lambda: (row := agent.table.task(task_id)) is not None and row.state == "claimed")
        outbox.put(Item(task_id, 1, "result", new_id(), result_of(task_id), FACTS))
        marker.write_text(task_id)
    outbox.close()


def room_of(agent: Agent, hub: Hub) -> Room:
    """The executor's room, without a sandbox."""
    none: Any = None
    outbox = Outbox(agent.settings.paths.executor_db)
    log = Logger(logging.getLogger("life"))
    return Room(
        agent.settings,
        Assignments(agent.settings.assignment),
        hub,
        agent.table,
        none,
        outbox,
        none,
        none,
        none,
        none,
        log,
    )


def watched(room: Room, after_step: Callable[[str], Any], put: Callable[..., None] = setattr) -> None:
    """Calls `after_step` when a step was done. `put` sets an attribute."""

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        async def step(*args: Any, **more: Any) -> Any:
            answer = await original(*args, **more)
            done = after_step(name)
            if done is not None:
                await done
            return answer

        def step_at_once(*args: Any) -> None:
            original(*args)
            after_step(name)

        put(owner, name, step if asyncio.iscoroutinefunction(original) else step_at_once)

    for name in STEPS:
        around(room.hub, name)
    for name in ("advance", "done"):
        around(room.outbox, name)
    around(publishing, "_write_whole")


async def published(room: Room) -> None:
    """Works off the outbox."""
    publisher = Publisher(room)
    publisher.resume()
    await publisher.settle(600)
    assert publisher.pending == 0
    assert room.outbox.items() == []
    room.outbox.close()


async def state(agent: Agent) -> dict[str, Any]:
    """What there is of the decision: in the table, the DHT, the log, on disk."""
    task_id = (agent.folder / "task").read_text()
    rows = agent.table.decisions().items
    for row in rows:
        await decisions.fetch(agent.hub, row.hash, listed=row)
        path = agent.settings.paths.tasks / task_id / "1" / publishing.RECORD_FILE
        decisions.verify(path.read_bytes(), listed=row)
    logged = [
        (entry["type"], entry["data"]["hash"])
        async for entry in Log(agent.hub).entries()
        if entry["type"] in ("decision_published", "task_completed")
    ]
    task = agent.table.task(task_id)
    assert task is not None
    return {
        "hashes": [row.hash for row in rows], "logged": sorted(logged), "state": task.state,
        "decision": task.decision, "addresses": [row.address for row in rows],
        "versions": [row.version for row in agent.table.ucxl.after(0)],
    }  # fmt: skip


async def main(folder: Path, kill_after: int) -> None:
    """One life."""
    agent = Agent("a", folder)
    await agent.start_node([])
    if (await agent.hub.raft_status()).mesh is None:
        await agent.hub.raft_found(TIMING, {"agent_id": "a"})
    await agent.start()
    await prepared(agent)
    room = room_of(agent, await agent.process_hub("publisher"))
    steps = 0

    def after_step(name: str) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_after:
            print(f"killed after step {steps}, {name}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    watched(room, after_step)
    await published(room)
    print(orjson.dumps({**await state(agent), "steps": steps}).decode(), flush=True)
    await agent.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

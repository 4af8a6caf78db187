"""How many attempts an executor takes follows the assignment; what runs goes on, also before a stop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from chorus.config import Assignment
from chorus.executor.desk import UNDER_WAY_S, Desk
from chorus.process import Assignments

DEADLINE_S = 30.0


async def test_fewer_tasks_take_effect_as_tasks_end() -> None:
    now, known = [0.0], SimpleNamespace(max_tasks=2)
    handle = Assignments(Assignment(max_tasks=2), clock=lambda: now[0])
    table = SimpleNamespace(member=lambda peer: known)
    room: Any = SimpleNamespace(assignments=handle, table=table, hub=SimpleNamespace(peer_id="p"))
    desk = Desk(room)
    assert desk._full == ""
    never = asyncio.Event()
    running = [asyncio.create_task(never.wait()) for _ in range(2)]
    desk._running["t", 0] = running[0]  # type: ignore[assignment]
    # Awarded before the mesh knew of the smaller number: it is taken all the same.
    handle.take(Assignment(max_tasks=1))
    assert desk._full == ""
    known.max_tasks = 1
    assert desk._full == ""
    desk._running["t", 1] = running[1]  # type: ignore[assignment]
    assert desk._full == "busy: 2 of 2 tasks"
    # What is awarded later is not.
    now[0] = UNDER_WAY_S
    assert desk._full == "busy: 2 of 1 tasks"
    assert not any(task.done() for task in running)
    del desk._running["t", 0]
    assert desk._full == "busy: 1 of 1 tasks"
    # The mesh may hear of a larger number before this process does.
    known.max_tasks = 3
    assert desk._full == ""
    known.max_tasks = 1
    handle.take(Assignment(max_tasks=3))
    assert desk._full == ""
    for task in running:
        task.cancel()


async def test_a_stop_waits_for_what_runs_until_its_time_is_over() -> None:
    room: Any = SimpleNamespace(assignments=Assignments(Assignment(max_tasks=2)))
    desk = Desk(room)
    ends = asyncio.Event()
    running = asyncio.create_task(ends.wait())
    key: Any = ("t", 1)
    desk._running[key] = running  # type: ignore[assignment]
    running.add_done_callback(lambda _: desk._running.pop(key))
    assert not await desk.settle(0.0)
    waiting = asyncio.create_task(desk.settle(DEADLINE_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    ends.set()
    assert await waiting
    assert not running.cancelled()

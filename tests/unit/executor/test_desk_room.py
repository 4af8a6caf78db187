"""How many attempts an executor takes follows the assignment; what runs goes on, also before a stop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from chorus.config import Assignment
from chorus.executor.desk import Desk
from chorus.process import Assignments

DEADLINE_S = 30.0


async def test_fewer_tasks_take_effect_as_tasks_end() -> None:
    handle = Assignments(Assignment(max_tasks=2))
    room: Any = SimpleNamespace(assignments=handle)
    desk = Desk(room)
    assert desk._full == ""
    never = asyncio.Event()
    running = [asyncio.create_task(never.wait()) for _ in range(2)]
    desk._running.update({("t", number): task for number, task in enumerate(running)})  # type: ignore[misc]
    assert desk._full == "busy: 2 of 2 tasks"
    handle.take(Assignment(max_tasks=1))
    assert desk._full == "busy: 2 of 1 tasks"
    assert not any(task.done() for task in running)
    del desk._running["t", 0]
    assert desk._full == "busy: 1 of 1 tasks"
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

"""What is looked at beside the attempts never ends them: the table, the daemon."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from chorus.executor import watch
from chorus.executor.watch import watch_table
from chorus.process.logs import Logger
from chorus.testing.fake_hub import FakeMesh

DEADLINE_S = 20.0


class Desk:
    """Cannot read its table the first times."""

    def __init__(self, failures: int) -> None:
        self.applied = asyncio.Event()
        self.failures = failures
        self.checked: list[set[str] | None] = []
        self.seen = asyncio.Event()

    def check(self, tasks: set[str] | None) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise sqlite3.OperationalError("disk I/O error")
        self.checked.append(tasks)
        self.seen.set()


def room(mesh: FakeMesh) -> Any:
    return SimpleNamespace(hub=mesh.hub("a", "executor"), log=Logger(logging.getLogger("test-watch")))


async def test_a_table_that_cannot_be_read_ends_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SWEEP_TABLE_S", 0.001)
    mesh, desk = FakeMesh(), Desk(failures=3)
    watching = asyncio.create_task(watch_table(room(mesh), desk))  # type: ignore[arg-type]
    try:
        coordinator = mesh.hub("a", "coordinator")
        async with asyncio.timeout(DEADLINE_S):
            while {"T"} not in desk.checked:
                await coordinator.publish_local("local/table", {"tasks": ["T"]})
                await asyncio.sleep(0)
            # The sweep goes on as well.
            while None not in desk.checked:
                desk.seen.clear()
                await desk.seen.wait()
        assert not watching.done()
    finally:
        watching.cancel()

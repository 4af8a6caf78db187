"""Bootstrap peers that an assignment names later on are dialled until they are reached."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chorus.config import Assignment
from chorus.hub import HubUnavailable
from chorus.node import bootstrap
from chorus.node.bootstrap import Bootstrap
from chorus.process import Assignments

DEADLINE_S = 20.0
A, B, C = (f"/ip4/10.0.0.{n}/tcp/9000" for n in (1, 2, 3))


async def test_new_peers_are_dialled_until_they_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "AGAIN_FIRST_S", 0.001)
    dialled: list[str] = []
    reached, away = asyncio.Event(), {B: 2}

    async def dial(address: str, timeout: float) -> None:
        dialled.append(address)
        if away.get(address, 0):
            away[address] -= 1
            raise HubUnavailable("nobody there")
        reached.set()

    quiet = SimpleNamespace(info=lambda *_, **__: None)
    process: Any = SimpleNamespace(
        assignments=Assignments(Assignment(bootstrap_peers=(A,))), hub=SimpleNamespace(dial=dial), log=quiet
    )
    work = asyncio.create_task(Bootstrap(process, (A,)).run())
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        process.assignments.take(Assignment(bootstrap_peers=(A, B)))
        await reached.wait()
        # The core knows the first one since its start, and B since it was reached.
        assert dialled == [B, B, B]
        reached.clear()
        # One that is not wanted any more is given up.
        away[C] = 1_000_000
        process.assignments.take(Assignment(bootstrap_peers=(A, C)))
        while C not in dialled:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        process.assignments.take(Assignment(bootstrap_peers=(A,)))
        for _ in range(10):
            await asyncio.sleep(0.001)
        count = len(dialled)
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert len(dialled) == count
    work.cancel()

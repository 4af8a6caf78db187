"""A sandbox's container bears the name of its task, unless the task is over before anybody could look."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chorus.executor.backend import Limits
from chorus.executor.docker import sandbox as module
from chorus.executor.docker.sandbox import DockerSandbox
from chorus.testing.sandbox_contract import Collected

DEADLINE_S = 60.0


class Engine:
    """A daemon that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.renamed = asyncio.Event()

    async def rename(self, container: str, name: str) -> None:
        self.told.append(("rename", container, name))
        self.renamed.set()

    async def remove(self, container: str) -> None:
        self.told.append(("remove", container))


async def begun(engine: Any) -> DockerSandbox:
    session: Any = SimpleNamespace(
        closed=asyncio.Future[str](), give=lambda sink: None, export=lambda env: None, close=lambda: None
    )
    made = DockerSandbox(engine, "id", session, "exec", "image", "digest", Limits(1.0, 1 << 27, 32, 1 << 26))
    await made.begin({"name": "chorus-task-1"}, {}, Collected())
    return made


async def test_a_task_that_goes_on_names_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NAME_DELAY_S", 0.0)
    engine = Engine()
    made = await begun(engine)
    async with asyncio.timeout(DEADLINE_S):
        await engine.renamed.wait()
    await made.close()
    assert engine.told == [("rename", "id", "chorus-task-1"), ("remove", "id")]


async def test_a_task_that_is_over_soon_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NAME_DELAY_S", DEADLINE_S)
    engine = Engine()
    made = await begun(engine)
    await asyncio.sleep(0)
    await made.close()
    assert engine.told == [("remove", "id")]

"""When the agent's health is looked at: when somebody asks, when the table changes, and rarely else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from chorus.api import observer
from chorus.api.context import TABLE_TOPIC

from .conftest import Surface

# Longer than any test takes.
LONG_S = 3600.0
PATIENCE_S = 30.0


@pytest.fixture
def looks(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[None]:
    """One item for each look."""
    seen = asyncio.Queue[None]()
    observe = surface.observer.observe

    async def counted() -> None:
        await observe()
        seen.put_nowait(None)

    monkeypatch.setattr(surface.observer, "observe", counted)
    return seen


async def test_what_is_known_is_answered_as_long_as_it_is_fresh(
    surface: Surface, looks: asyncio.Queue[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "PERIOD_S", LONG_S)
    # Who asks at the same time shares one look.
    answers = await asyncio.gather(*(surface.probes.get(path) for path in ("/ready", "/health") * 3))
    assert {answer.status_code for answer in answers} == {200}
    surface.mesh.cut("a", "b")
    assert (await surface.probes.get("/ready")).status_code == 200
    assert looks.qsize() == 1
    monkeypatch.setattr(observer, "PERIOD_S", 0.0)
    monkeypatch.setattr(observer, "START_PERIOD_S", 0.0)
    assert (await surface.probes.get("/ready")).status_code == 503
    assert (await surface.probes.get("/health")).status_code == 503
    assert looks.qsize() == 3


async def test_an_agent_that_is_ready_looks_when_the_table_changes(
    surface: Surface, looks: asyncio.Queue[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "PERIOD_S", 0.0)
    monkeypatch.setattr(observer, "QUIET_S", LONG_S)
    following = asyncio.create_task(surface.context.changes.follow(surface.hub))
    running = asyncio.create_task(surface.observer.run())
    async with asyncio.timeout(PATIENCE_S):
        for number in range(3):
            if number:
                await surface.hub.publish_local(TABLE_TOPIC, {"tasks": []})
            await looks.get()
    following.cancel()
    running.cancel()


async def test_the_look_comes_a_period_after_the_change(
    surface: Surface, looks: asyncio.Queue[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = list[str]()
    sleep = asyncio.sleep

    async def sleeping(_: float) -> None:
        happened.append("period")
        await sleep(0)

    monkeypatch.setattr(observer, "PERIOD_S", 0.0)
    monkeypatch.setattr(observer, "QUIET_S", LONG_S)
    monkeypatch.setattr(observer, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleeping}))
    following = asyncio.create_task(surface.context.changes.follow(surface.hub))
    running = asyncio.create_task(surface.observer.run())
    async with asyncio.timeout(PATIENCE_S):
        await looks.get()
        for _ in range(100):  # whatever it does without a change
            await sleep(0)
        happened.append("change")
        await surface.hub.publish_local(TABLE_TOPIC, {"tasks": []})
        await looks.get()
    following.cancel()
    running.cancel()
    assert happened[:2] == ["change", "period"]


async def test_an_agent_that_is_not_ready_looks_again_and_again(
    surface: Surface, looks: asyncio.Queue[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PERIOD_S", "START_PERIOD_S"):
        monkeypatch.setattr(observer, name, 0.0)
    monkeypatch.setattr(observer, "QUIET_S", LONG_S)
    surface.mesh.cut("a", "b")
    running = asyncio.create_task(surface.observer.run())
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            await looks.get()
    running.cancel()

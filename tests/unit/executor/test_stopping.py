"""Work that an attempt's end cuts short."""

from __future__ import annotations

import asyncio

import pytest

from chorus.executor.stopping import StopAsked, until_set


async def test_the_result_of_a_done_future_comes_before_other_work_has_its_turn() -> None:
    turns: list[str] = []
    done = asyncio.get_running_loop().create_future()
    done.set_result("result")
    asyncio.get_running_loop().call_soon(turns.append, "other work")
    assert await until_set(asyncio.shield(done), asyncio.Event()) == "result"
    assert turns == []


async def test_work_that_is_done_counts_for_nothing_once_the_event_is_set() -> None:
    asked = asyncio.Event()
    asked.set()
    done = asyncio.get_running_loop().create_future()
    done.set_result("result")
    with pytest.raises(StopAsked):
        await until_set(done, asked)


async def test_the_event_cancels_the_work() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.ensure_future(until_set(work(), asked))
    asyncio.get_running_loop().call_soon(asked.set)
    with pytest.raises(StopAsked):
        await waiting
    await asyncio.wait_for(ended.wait(), 10)


async def test_what_is_shielded_goes_on_after_the_event() -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await release.wait()
        return "result"

    making = asyncio.ensure_future(work())
    asked.set()
    with pytest.raises(StopAsked):
        await until_set(asyncio.shield(making), asked)
    release.set()
    assert await making == "result"


@pytest.mark.parametrize("already", [True, False])
async def test_the_works_error_is_raised(already: bool) -> None:
    async def work() -> None:
        raise ValueError("broken")

    making = asyncio.ensure_future(work())
    if already:
        await asyncio.wait([making])
    with pytest.raises(ValueError, match="broken"):
        await until_set(making, asyncio.Event())

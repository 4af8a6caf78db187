"""The agent's log over HTTP: pages from either end, events as they come, the verification."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from chorus.hub.feeds import Feed

from .conftest import Surface


async def fill(surface: Surface, count: int) -> None:
    for n in range(count):
        await surface.hub.log_append("even" if n % 2 == 0 else "odd", {"n": n})


async def numbers(surface: Surface, query: str) -> tuple[list[int], str | None]:
    answer = await surface.api.get(f"/api/v1/log?{query}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["length"], body["key"]) == (10, "fake")
    return [item["seq"] for item in body["items"]], body["next"]


async def test_pages_go_both_ways_and_by_type(surface: Surface) -> None:
    await fill(surface, 10)
    assert await numbers(surface, "limit=4") == ([0, 1, 2, 3], "4")
    assert await numbers(surface, "limit=9&cursor=4") == ([4, 5, 6, 7, 8, 9], None)
    assert await numbers(surface, "limit=2&order=newest") == ([9, 8], "8")
    assert await numbers(surface, "limit=2&order=newest&cursor=8&type=odd") == ([7, 5], "5")
    assert await numbers(surface, "limit=9&order=newest&cursor=5") == ([4, 3, 2, 1, 0], None)
    assert await numbers(surface, "type=nothing") == ([], None)
    assert await numbers(surface, "cursor=99") == ([], None)


@pytest.mark.parametrize(
    "query", ["order=no", "limit=0", "limit=1001", "cursor=-1", "cursor=x", "follow=true&order=newest"]
)
async def test_what_cannot_be_asked_is_refused(surface: Surface, query: str) -> None:
    assert (await surface.api.get(f"/api/v1/log?{query}")).status_code == 422


class Reader:
    """Reads a stream of events in the background."""

    def __init__(self, surface: Surface, query: str, last: str | None = None) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.begun = asyncio.Event()
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(surface, query, last))

    async def _run(self, surface: Surface, query: str, last: str | None) -> None:
        ident = event = ""
        headers = {} if last is None else {"Last-Event-ID": last}
        async with surface.api.stream("GET", f"/api/v1/log{query}", headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    ident = value
                elif name == "event":
                    event = value
                elif name == "data":
                    self.events.append((ident, event, orjson.loads(value)))
                    ident = event = ""
                self.begun.set()
                self._changed.set()

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(20):
            while len(self.events) < count:
                self._changed.clear()
                await self._changed.wait()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert all(event == "entry" and int(ident) == data["seq"] for ident, event, data in self.events)
        return [ident for ident, _, _ in self.events]


async def test_a_follower_is_told_what_comes(surface: Surface) -> None:
    await fill(surface, 3)
    reader = Reader(surface, "?follow=true&cursor=1")
    await asyncio.wait_for(reader.begun.wait(), 20)
    await fill(surface, 2)
    assert await reader.until(4) == ["1", "2", "3", "4"]


async def test_a_follower_resumes_after_the_last_event(surface: Surface) -> None:
    await fill(surface, 6)
    assert await Reader(surface, "?follow=true&cursor=0", last="3").until(2) == ["4", "5"]
    assert await Reader(surface, "?follow=true&type=odd", last="0").until(3) == ["1", "3", "5"]
    headers = {"Last-Event-ID": "1-2"}
    assert (await surface.api.get("/api/v1/log?follow=true", headers=headers)).status_code == 400


async def test_a_follower_leaves_nothing_behind(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()
    detach = surface.hub.detach_feed

    async def detached(feed: Feed[Any]) -> None:
        await detach(feed)
        left.set()

    monkeypatch.setattr(surface.hub, "detach_feed", detached)
    before = list(surface.hub._feeds)
    await fill(surface, 1)
    await Reader(surface, "?follow=true&cursor=0").until(1)
    await asyncio.wait_for(left.wait(), 20)
    assert surface.hub._feeds == before


async def test_the_verification_tells_how_it_ended(surface: Surface) -> None:
    await fill(surface, 4)
    reader = Reader(surface, "/verify")
    async with asyncio.timeout(20):
        await reader.task
    ((_, event, data),) = reader.events
    assert (event, data["genuine"], data["length"]) == ("end", True, 4)
    # An EventSource comes back by itself, and does not mean to verify it all again.
    again = await surface.api.get("/api/v1/log/verify", headers={"Last-Event-ID": reader.events[0][0]})
    assert again.status_code == 204
    assert "kind" not in data

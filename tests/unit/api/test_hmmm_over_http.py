"""Discussions over HTTP: listed, read, followed with resumption, joined by a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from chorus.hub import HubNotFound, HubRefused, Request

from .conftest import TASK_ID, Surface

SESSION = "7YNTCPW6Z2V45Q2DZ940DC95GY"
PATH = f"/api/v1/hmmm/sessions/{SESSION}"


class Discussions:
    """Answers for the coordinator: one session, and what was said in it."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.items: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.ended = False

    async def serve(self, request: Request) -> dict[str, Any]:
        self.asked.append({"method": request.method, **request.head})
        if request.method == "hmmm.list":
            return {"items": [{"session_id": SESSION}], "next": None}
        if request.method == "hmmm.read":
            return {"for_s": 30}
        if request.head["session_id"] != SESSION:
            raise HubNotFound("no discussion")
        if request.method == "hmmm.say":
            if self.ended:
                raise HubRefused("the discussion is over: unanimous")
            return {"message": {"n": 9, "kind": "message", "message": request.head["message"]}}
        items = [item for item in self.items if item["n"] > request.head.get("after", 0)]
        return {"session": {"session_id": SESSION}, "items": items, "ended": self.ended}

    def add(self, kind: str = "message", *, ended: bool = False) -> None:
        n = len(self.items) + 1
        self.items.append({"n": n, "kind": kind, "at": "t", "message": f"m{n}"})
        self.ended = ended
        self.surface.context.changes._wake([SESSION])


@pytest.fixture
async def discussions(surface: Surface) -> Discussions:
    made = Discussions(surface)
    await surface.mesh.hub("a", "coordinator").offer("coordinator", made.serve)
    return made


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """(id, event) of each."""
    found: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            found[name] = value
        elif "event" in found:
            yield found.get("id", ""), found["event"]
            found = {}


async def test_sessions_are_listed_and_read(surface: Surface, discussions: Discussions) -> None:
    answer = await surface.api.get("/api/v1/hmmm/sessions", params={"task_id": TASK_ID, "limit": 3})
    assert answer.json() == {"items": [{"session_id": SESSION}], "next": None}
    assert discussions.asked[-1] == {
        "method": "hmmm.list", "task_id": TASK_ID, "limit": 3, "cursor": None,
    }  # fmt: skip
    discussions.add()
    shown = (await surface.api.get(PATH)).json()
    assert shown["session_id"] == SESSION
    assert [item["n"] for item in shown["items"]] == [1]
    assert (await surface.api.get("/api/v1/hmmm/sessions/nothing")).status_code == 404
    assert (await surface.api.get(f"/api/v1/hmmm/sessions/{'Z' * 26}")).status_code == 404
    assert (await surface.api.get("/api/v1/hmmm/sessions", params={"task_id": "x"})).status_code == 422


async def test_a_person_says_something(surface: Surface, discussions: Discussions) -> None:
    body = {"message": "go on", "intent": "agreement", "name": "ann", "parent_id": "1" * 26}
    answer = await surface.api.post(f"{PATH}/messages", json=body)
    assert (answer.status_code, answer.json()["message"]) == (201, "go on")
    assert discussions.asked[-1] == {"method": "hmmm.say", "session_id": SESSION, **body}
    for wrong, field in (
        ({}, "message"),
        ({"message": "x", "intent": "proposal"}, "intent"),
        ({"message": "x", "parent_id": "x"}, "parent_id"),
        ({"message": "x", "more": 1}, "more"),
    ):
        refused = await surface.api.post(f"{PATH}/messages", json=wrong)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field
    discussions.ended = True
    late = await surface.api.post(f"{PATH}/messages", json={"message": "x"})
    assert (late.status_code, late.json()["detail"]) == (409, "the discussion is over: unanimous")


async def test_events_go_on_after_the_last_one_and_end(surface: Surface, discussions: Discussions) -> None:
    discussions.add()
    async with surface.api.stream("GET", f"{PATH}/events") as answer:
        told = events(answer)
        assert await anext(told) == ("1", "message")
        discussions.add("help")
        assert await anext(told) == ("2", "help")
    async with surface.api.stream("GET", f"{PATH}/events", headers={"Last-Event-ID": "1"}) as answer:
        told = events(answer)
        assert await anext(told) == ("2", "help")
        await asyncio.sleep(0)
        discussions.add("record", ended=True)
        assert [event async for event in told] == [("3", "record"), ("end", "end")]
    over = await surface.api.get(f"{PATH}/events", headers={"Last-Event-ID": "end"})
    assert over.status_code == 204
    odd = await surface.api.get(f"{PATH}/events", headers={"Last-Event-ID": "x"})
    assert odd.status_code == 400


async def test_a_person_says_that_it_reads_along(surface: Surface, discussions: Discussions) -> None:
    answer = await surface.api.post("/api/v1/hmmm/reader")
    assert (answer.status_code, answer.json()) == (200, {"for_s": 30})
    assert discussions.asked == [{"method": "hmmm.read"}]

"""Events of a task: whole, in order, resumable, and honest about what cannot be had."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from chorus.api.story import Story
from chorus.table.rows import StateChange, TaskStory

from .conftest import T0, TASK_ID, Surface, attempt_row, task_row

PATH = f"/api/v1/tasks/{TASK_ID}/events"
DONE = {"exit_code": 0, "ended_by": "exit"}


class Reader:
    """Reads a stream of events in the background."""

    def __init__(self, surface: Surface, last: str = "") -> None:
        self._surface = surface
        self._last = last
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        ident = event = ""
        headers = {"Last-Event-ID": self._last} if self._last else {}
        async with self._surface.api.stream("GET", PATH, headers=headers) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    ident = line[4:]
                elif line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    self.events.append((ident, event, orjson.loads(line[6:])))
                    ident = event = ""
                    self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.events) < count:
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> list[str]:
        async with asyncio.timeout(20):
            await self.task
        return [f"{ident} {event}" for ident, event, _ in self.events]


def announced(surface: Surface) -> None:
    surface.table.row = task_row()
    surface.table.changes = [StateChange(0, "announced", T0, "")]


def finished(surface: Surface, state: str = "completed") -> None:
    surface.table.row = task_row(
        state=state, attempt=1, agent="peer-b", agent_id="b", finished_at=T0 + 5, result=dict(DONE)
    )
    surface.table.attempt_rows = [attempt_row(state=state, finished_at=T0 + 5)]
    surface.table.changes = [
        StateChange(0, "announced", T0, ""),
        StateChange(1, "announced", T0, "awarded to b"),
        StateChange(1, state, T0 + 5, ""),
    ]


async def test_live_from_the_first_event_to_the_end(surface: Surface) -> None:
    announced(surface)
    reader = Reader(surface)
    await reader.until(1)
    surface.table.row = task_row(state="running", attempt=1, agent="peer-b")
    surface.table.attempt_rows = [attempt_row()]
    surface.executor.add("state", {"state": "running"})
    surface.executor.add("output", {"stream": "stdout", "command": 1, "text": "a\nb\n"})
    surface.wake()
    await reader.until(3)
    finished(surface)
    surface.executor.add("end", {"state": "completed", "exit_code": 0})
    surface.executor.finish()
    surface.wake()
    assert await reader.end() == ["0-1 state", "1-1 state", "1-2 output", "1-3 end"]
    assert reader.events[-1][2]["ended_by"] == "exit"
    assert reader.events[2][2]["text"] == "a\nb\n"


async def test_resumes_after_any_event(surface: Surface) -> None:
    finished(surface)
    surface.executor.add("output", {"text": "1"})
    surface.executor.add("output", {"text": "2"})
    surface.executor.add("end", {"state": "completed"})
    surface.executor.finish()
    whole = ["0-1 state", "1-1 output", "1-2 output", "1-3 end"]
    assert await Reader(surface).end() == whole
    for count, last in enumerate(["0-1", "1-1", "1-2"], 1):
        assert await Reader(surface, last).end() == whole[count:]


async def test_who_comes_back_after_the_end_is_told_to_stay_away(surface: Surface) -> None:
    finished(surface)
    surface.executor.add("end", {"state": "completed"})
    surface.executor.finish()
    assert await Reader(surface).end() == ["0-1 state", "1-1 end"]
    for last in ("1-1", "1-2"):
        answer = await surface.api.get(PATH, headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.content) == (204, b"")
    # Without a place, and at an empty one, the story is told again.
    assert (await surface.api.get(PATH)).status_code == 200
    assert (await surface.api.get(PATH, headers={"Last-Event-ID": ""})).status_code == 200


async def test_the_end_waits_for_a_table_that_is_late(surface: Surface, monkeypatch: Any) -> None:
    looks = asyncio.Event()
    look = Story._look

    def noticed(story: Story) -> TaskStory:
        looks.set()
        return look(story)

    monkeypatch.setattr(Story, "_look", noticed)
    announced(surface)
    surface.table.row = task_row(state="running", attempt=1, agent="peer-b")
    surface.table.attempt_rows = [attempt_row()]
    surface.executor.add("end", {"state": "completed", "exit_code": 0})
    surface.executor.finish()
    reader = Reader(surface)
    for _ in range(3):
        # However often it looks and finds nothing new.
        looks.clear()
        surface.wake()
        await looks.wait()
    finished(surface)
    surface.wake()
    assert await reader.end() == ["0-1 state", "1-1 end"]


async def test_an_executor_that_did_not_say_how_it_ended(surface: Surface) -> None:
    finished(surface, "cancelled")
    surface.executor.add("output", {"text": "1"})
    surface.executor.finish()
    assert await Reader(surface).end() == ["0-1 state", "1-1 output", "1-2 end"]


async def test_a_task_that_nobody_ran(surface: Surface) -> None:
    surface.table.row = task_row(state="cancelled", finished_at=T0)
    surface.table.changes = [StateChange(0, "announced", T0, ""), StateChange(0, "cancelled", T0, "by a")]
    assert await Reader(surface).end() == ["0-1 state", "0-2 end"]


async def test_a_declined_award_and_the_next(surface: Surface) -> None:
    finished(surface)
    surface.table.row = task_row(
        state="completed", attempt=2, agent="peer-b", finished_at=T0, result=dict(DONE)
    )
    surface.table.attempt_rows = [
        attempt_row(1, state="declined", claimed_at=None, finished_at=T0),
        attempt_row(2, state="completed", finished_at=T0),
    ]
    surface.table.changes = [
        StateChange(0, "announced", T0, ""),
        StateChange(1, "announced", T0, "awarded to b"),
        StateChange(1, "announced", T0, "declined: full"),
        StateChange(2, "announced", T0, "awarded to b"),
        StateChange(2, "completed", T0, ""),
    ]
    surface.executor.events = [{"id": "2-1", "event": "end", "data": {"state": "completed"}}]
    surface.executor.finish()
    assert await Reader(surface).end() == ["0-1 state", "1-1 state", "1-2 state", "2-1 end"]


async def test_an_agent_that_is_gone_leaves_a_gap(surface: Surface, monkeypatch: Any) -> None:
    monkeypatch.setattr("chorus.api.story.RETRY_MAX_S", 0.05)
    finished(surface)
    surface.mesh.cut("a", "b")
    reader = Reader(surface)
    assert await reader.end() == ["0-1 state", " gap", " end"]
    assert "cannot be asked" in reader.events[1][2]["detail"]


async def test_an_executor_that_lies_is_not_believed(surface: Surface) -> None:
    finished(surface, "cancelled")
    surface.executor.events = [
        {"id": "1-1", "event": "output", "data": {"text": "1"}},
        {"id": "x", "event": "output", "data": {}},
        {"id": "1-1", "event": "output", "data": {"text": "again"}},
        {"id": "2-2", "event": "output", "data": {}},
        {"over": {"events": "many"}},
        {"id": "1-2", "event": "end", "data": {"state": "completed"}},
        {"id": "1-3", "event": "end", "data": {"state": "completed"}},
    ]
    surface.executor.finish()
    reader = Reader(surface)
    assert await reader.end() == ["0-1 state", "1-1 output", " gap", " gap", "1-2 state", "1-3 end"]
    assert reader.events[-1][2]["state"] == "cancelled"


async def test_bad_places_are_refused(surface: Surface) -> None:
    finished(surface)
    for last in ("x", "1", "1-", "-1", "1-x", "²-1"):
        answer = await surface.api.get(PATH, headers={"Last-Event-ID": last.encode("utf-8")})
        assert answer.status_code == 400, last


async def test_logs_are_the_raw_bytes(surface: Surface) -> None:
    finished(surface)
    surface.executor.stdout = bytes(range(256)) * 20_000
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}/logs?stream=stdout")
    assert answer.content == surface.executor.stdout
    surface.mesh.cut("a", "b")
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}/logs")
    assert answer.status_code == 503
    assert "agent b" in answer.json()["detail"]


@pytest.mark.parametrize(
    "artifacts", [[{}], [None], [{"path": 1, "size": "x", "sha256": "\n"}], {"a": 1}, "x"]
)
async def test_artifacts_of_a_log_of_before_that_cannot_be_read(surface: Surface, artifacts: Any) -> None:
    finished(surface)
    good = {"path": "a", "size": 3, "sha256": "ab"}
    listed = [*artifacts, good] if isinstance(artifacts, list) else artifacts
    result = {**DONE, "artifacts": listed}
    surface.table.row = task_row(state="completed", attempt=1, agent="peer-b", finished_at=T0, result=result)
    shown = [good] if isinstance(artifacts, list) else []
    for path in ("", "/artifacts"):
        answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}{path}")
        assert answer.status_code == 200
        body = answer.json()
        assert (body["items"] if path else body["result"]["artifacts"]) == shown
    assert (await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts/1")).status_code == 404


async def test_artifacts(surface: Surface) -> None:
    finished(surface)
    assert surface.table.row is not None
    result = {**DONE, "artifacts": [{"path": "out/r é.xml", "size": 3, "sha256": "ab"}]}
    surface.table.row = task_row(state="completed", attempt=1, agent="peer-b", finished_at=T0, result=result)
    surface.executor.stdout = b"abc"
    listed = (await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts")).json()
    assert [item["path"] for item in listed["items"]] == ["out/r é.xml"]
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts/out/r%20%C3%A9.xml")
    assert (answer.content, answer.headers["etag"]) == (b"abc", '"ab"')
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts/other")
    assert answer.status_code == 404

"""What other members say of a task reaches the reader as data: tolerant of old and odd rows, no way out of a
header or of an event.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from chorus.api.header_values import attachment, header_text

from .conftest import TASK_ID, Surface, attempt_row, task_row

SHA = "0" * 64
GOOD = {"path": "a/b.txt", "size": 3, "sha256": SHA}
ODD_ARTIFACTS: list[Any] = [
    [{}],
    [None],
    ["x"],
    {},
    "x",
    7,
    [{**GOOD, "size": -1}],
    [{**GOOD, "size": "3\r\nX: y"}],
    [{**GOOD, "size": True}],
    [{**GOOD, "sha256": 'x"\r\nX: y'}],
    [{**GOOD, "path": None}],
    [{**GOOD, "path": "/etc/passwd"}],
    [{**GOOD, "path": "a/../../b"}],
]


@pytest.mark.parametrize("odd", ODD_ARTIFACTS)
async def test_odd_artifacts_of_a_result_are_left_out(surface: Surface, odd: Any) -> None:
    listed = [*odd, GOOD] if isinstance(odd, list) else odd
    surface.table.row = task_row(
        state="completed", attempt=1, agent="peer-b", finished_at=1, result={"artifacts": listed}
    )
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts")
    assert answer.status_code == 200
    assert answer.json()["items"] == ([GOOD] if isinstance(odd, list) else [])
    assert (await surface.api.get(f"/api/v1/tasks/{TASK_ID}")).status_code == 200
    assert (await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts/x")).status_code == 404


@pytest.mark.parametrize("odd", [7, "x", [], {"a": 1}, None, True])
@pytest.mark.parametrize("name", ["commands", "artifacts", "usage", "context", "exit_code", "decision"])
async def test_odd_results_are_shown(surface: Surface, name: str, odd: Any) -> None:
    surface.table.row = task_row(
        state="completed", attempt=1, agent="peer-b", finished_at=1, result={name: odd}
    )
    surface.table.attempt_rows = [attempt_row(state="completed", finished_at=1, result={name: odd})]
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}")
    assert answer.status_code == 200
    assert isinstance(answer.json()["result"]["artifacts"], list)
    assert (await surface.api.get("/api/v1/tasks")).status_code == 200


HOSTILE_NAMES = [
    'a"; filename="evil.exe',
    "a\r\nX-Evil: 1",
    "\x1b[2J",
    "\u202egpj.exe",
    "é€😀",
    "a" * 5000,
    "%",
    "\\",
]


def has_artifact(surface: Surface, item: dict[str, Any], content: bytes) -> None:
    """A task that ended with one artifact, which its executor serves as this content."""
    surface.table.row = task_row(
        state="completed",
        attempt=1,
        agent="peer-b",
        agent_id="b",
        finished_at=1,
        result={"artifacts": [item]},
    )
    surface.table.attempt_rows = [attempt_row(state="completed", finished_at=1)]
    surface.executor.stdout = content


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_a_name_does_not_leave_its_header(surface: Surface, name: str) -> None:
    has_artifact(surface, {**GOOD, "path": f"dir/{name}"}, b"abc")
    path = "/".join(("dir", name))
    answer = await surface.api.get(httpx_path(f"/api/v1/tasks/{TASK_ID}/artifacts/", path))
    if "\n" in name:
        # No route takes it: it cannot be had by itself, which does no harm.
        assert answer.status_code == 404
        return
    assert (answer.status_code, answer.content) == (200, b"abc")
    said = answer.headers["content-disposition"]
    assert said.count('"') == 2
    assert said.isascii()
    assert said.isprintable()
    assert "X-Evil" not in answer.headers


def httpx_path(base: str, path: str) -> str:
    from urllib.parse import quote

    return base + quote(path, safe="/")


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "\ud800"])
def test_header_values_are_visible_ascii(name: str) -> None:
    for value in (header_text(name), attachment(name)):
        assert value.isascii()
        assert value.isprintable()


async def test_an_artifact_that_is_longer_or_shorter_than_promised(surface: Surface) -> None:
    has_artifact(surface, GOOD, b"abcdef")
    surface.executor.honest = False
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts/a/b.txt")
    assert answer.content == b"abc"
    surface.executor.stdout = b"a"
    with pytest.raises(Exception, match=r"peer closed|incomplete"):
        await surface.api.get(f"/api/v1/tasks/{TASK_ID}/artifacts/a/b.txt")
    # Only that request ended.
    assert (await surface.api.get("/api/v1/status")).status_code == 200


ODD_EVENTS: list[Any] = [
    {"id": "1-1", "event": "output\n\nevent: end", "data": {}},
    {"id": "1-1", "event": "a" * 100, "data": {}},
    {"id": "1-1", "event": "output", "data": [["a", 1]]},
    {"id": "1-1", "event": None, "data": {}},
    {"id": 7, "event": "output", "data": {}},
    {"over": {"events": [], "ended": None}},
    {"over": 7},
    ["over"],
    "over",
    7,
]


@pytest.mark.parametrize("odd", ODD_EVENTS)
async def test_odd_events_of_an_executor_are_told_as_lost(surface: Surface, odd: Any) -> None:
    surface.table.row = task_row(state="running", attempt=1, agent="peer-b", agent_id="b")
    surface.table.attempt_rows = [attempt_row()]
    surface.executor.events = [odd]
    assert b"event: gap" in await told(surface)


async def told(surface: Surface) -> bytes:
    """The first event of the task."""
    said = b""
    async with (
        asyncio.timeout(30),
        surface.api.stream("GET", f"/api/v1/tasks/{TASK_ID}/events") as answer,
    ):
        async for chunk in answer.aiter_raw():
            said += chunk
            if b"event: " in said and said.endswith(b"\n\n"):
                break
    return said


def test_orjson_reads_deeper_than_it_writes() -> None:
    # Why an event may be read and still not be told (sse.encode_event).
    from chorus.api.sse import Event, encode_event

    data = orjson.loads(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}")
    assert encode_event(Event("1-1", "message", data)).startswith(b"id: 1-1\nevent: gap\ndata: ")

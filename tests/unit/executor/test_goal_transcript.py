"""The journal of a goal: what is in it is clean, numbered without gaps, and there once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.executor.goal.records import RecordInvalid, read_record
from chorus.executor.goal.transcript import Transcript

SECRET = "hunter2-hunter2"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

FIELDS = ("step", "id", "text", "calls", "finish", "kind2", "tokens_in", "usd", "seconds", "n")


def clean(text: str) -> str:
    return text.replace(SECRET, "[REDACTED:task-secret]")


def made(folder: Path) -> Transcript:
    return Transcript(folder, clean, lambda: "2026-01-01T00:00:00.000Z")


def reply(step: int, text: str = "") -> bytes:
    said = {"kind": "reply", "step": step, "text": text, "calls": [], "finish": "stop"}
    return orjson.dumps(said)


def test_records_have_numbers_and_no_secrets(tmp_path: Path) -> None:
    journal = made(tmp_path)
    journal.add("call", step=1, arguments={SECRET: [SECRET, {"deep": SECRET}]})
    number, written = journal.append(reply(1, f"it is {SECRET}"))
    assert (number, written and written["text"]) == (2, "it is [REDACTED:task-secret]")
    assert SECRET.encode() not in journal.path.read_bytes()
    assert journal.record(2) == written
    assert journal.begun


def test_a_repeat_is_not_written_again(tmp_path: Path) -> None:
    journal = made(tmp_path)
    note = orjson.dumps({"kind": "note", "kind2": "hint", "id": "x", "text": "t", "upto": [1, 2]})
    plan = orjson.dumps({"kind": "plan", "step": 0, "id": "x", "text": "t"})
    assert [journal.append(each)[0] for each in (reply(1), note, plan)] == [1, 2, 3]
    before = journal.path.read_bytes()
    assert [journal.append(each) for each in (reply(1, "other"), note, plan)] == [
        (1, None),
        (2, None),
        (3, None),
    ]
    assert journal.path.read_bytes() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 15), st.integers(0, 400))
def test_pages_hold_every_record_once(tmp_path: Path, words: list[str], first: int, limit: int) -> None:
    journal = made(tmp_path)
    for word in words:
        journal.add("note", text=word)
    read: list[Any] = []
    place = first
    while True:
        page, following = journal.page(place, limit)
        records = orjson.loads(page)
        if not records:
            break
        assert len(records) == 1 or len(page) <= limit + 2
        assert following == records[-1]["n"] + 1
        read += records
        place = following
    assert [record["n"] for record in read] == list(range(max(first, 1), len(words) + 1))
    assert [record["text"] for record in read] == [clean(word) for word in words[max(first, 1) - 1 :]]


@given(st.binary(max_size=40) | JSON.map(orjson.dumps))
def test_whatever_is_sent_is_taken_or_refused_by_name(payload: bytes) -> None:
    with contextlib.suppress(RecordInvalid):
        said, key = read_record(payload)
        assert key[0] == said["kind"]


@given(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["reply", "note", "plan"])},
        optional=dict.fromkeys(
            ("step", "id", "text", "calls", "finish", "kind2", "tokens_in", "usd", "seconds", "n"), JSON
        ),
    )
)
def test_records_that_look_right_are_taken_or_refused_by_name(said: dict[str, Any]) -> None:
    with contextlib.suppress(RecordInvalid):
        read, _ = read_record(orjson.dumps(said))
        assert read["kind"] in ("reply", "note", "plan")
        assert "n" not in read


def test_a_full_disk_leaves_no_half_line(small_disk: Path, filler: Callable[[], Path]) -> None:
    journal = made(small_disk)
    journal.add("note", text="before")
    full = filler()
    with pytest.raises(OSError, match="No space"):
        journal.add("note", text="x" * 100_000)
    full.unlink()
    assert journal.add("note", text="after")["n"] == 2
    assert [orjson.loads(line)["text"] for line in journal.path.read_bytes().splitlines()] == [
        "before",
        "after",
    ]

"""A full disk under the executor: what is written is whole or not there, and the rest is said."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from chorus.executor.journal import Journal
from chorus.executor.output import OutputGate
from chorus.executor.redaction import Sentinel


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


async def test_an_event_is_whole_or_not_there(small_disk: Path, filler: Callable[[], Path]) -> None:
    journal = Journal(small_disk, 1)
    journal.event("state", {"state": "running"})
    file = filler()
    with pytest.raises(OSError, match="No space"):
        journal.output("stdout", 1, b"x" * 100_000, "x" * 100_000)
    with pytest.raises(OSError, match="No space"):
        journal.event("note", {"text": "y" * 100_000})
    file.unlink()
    assert journal.event("state", {"state": "released"}) == "1-2"
    assert [line["id"] for line in lines(small_disk / "events.jsonl")] == ["1-1", "1-2"]
    assert (small_disk / "stdout").read_bytes() == b""
    journal.close()
    again = Journal(small_disk, 1)
    assert again.event("end", {}) == "1-3"
    again.close()


async def test_followers_never_see_what_was_taken_back(small_disk: Path, filler: Callable[[], Path]) -> None:
    journal = Journal(small_disk, 1)
    file = filler()
    with pytest.raises(OSError, match="No space"):
        journal.event("note", {"text": "y" * 100_000})
    file.unlink()
    journal.event("state", {"state": "released"})
    journal.close()
    seen = b"".join([chunk async for chunk in journal.follow("events.jsonl")])
    assert [orjson.loads(line)["id"] for line in seen.splitlines()] == ["1-1"]


async def test_output_on_a_full_disk_is_counted_and_named(
    small_disk: Path, filler: Callable[[], Path]
) -> None:
    journal = Journal(small_disk, 1)
    gate = OutputGate(journal, Sentinel())
    gate.write("stdout", 1, b"before\n")
    file = filler()
    for _ in range(10):
        gate.write("stdout", 1, b"x" * 10_000)
    gate.end(1)
    gate.finish()
    assert gate.failed is not None
    assert gate.failed.errno == errno.ENOSPC
    assert gate.seen()["stdout"] == 100_007
    file.unlink()
    assert all(line["id"] for line in lines(small_disk / "events.jsonl"))


async def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.close()
    with pytest.raises(OSError, match="closed"):
        journal.event("state", {})
    journal.close()

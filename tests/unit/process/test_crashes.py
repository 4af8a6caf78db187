"""The book of crashes: counted, kept bounded, and called repeating only while they come close together."""

from __future__ import annotations

from pathlib import Path

from chorus.process import crashes
from chorus.process.crashes import REPEATING_COUNT, REPEATING_WITHIN_MS, TIMES_KEPT, Crashes


def test_repeating_needs_several_within_a_minute() -> None:
    record = Crashes()
    for n in range(REPEATING_COUNT - 1):
        record = record.crashed(n)
    assert not record.repeating(10)
    record = record.crashed(10)
    assert record.repeating(10)
    assert not record.repeating(10 + REPEATING_WITHIN_MS + 1)


def test_what_supervisord_gave_up_is_repeating() -> None:
    assert Crashes(count=1, state="fatal").repeating(0)


def test_counts_are_whole_and_times_bounded() -> None:
    record = Crashes()
    for n in range(100):
        record = record.crashed(n)
    assert record.count == 100
    assert record.times_ms == tuple(range(100 - TIMES_KEPT, 100))


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "crashes.json"
    assert crashes.load(path) == {}
    assert crashes.repeating(path, 0) == []
    records = {"node": Crashes().crashed(1), "api": Crashes(state="fatal", next_start_ms=5)}
    crashes.save(path, records)
    assert crashes.load(path) == records
    assert crashes.repeating(path, 1) == ["api"]


def test_those_that_did_not_answer_are_counted_among_them(tmp_path: Path) -> None:
    record = Crashes().crashed(1).crashed(2, unresponsive=True).crashed(3)
    assert (record.count, record.unresponsive) == (3, 1)
    crashes.save(tmp_path / "crashes.json", {"api": record})
    assert crashes.load(tmp_path / "crashes.json") == {"api": record}


def test_the_next_life_is_told_once(tmp_path: Path) -> None:
    assert not crashes.take_unresponsive(tmp_path, "executor")
    crashes.note_unresponsive(tmp_path, "executor")
    assert not crashes.take_unresponsive(tmp_path, "api")
    assert crashes.take_unresponsive(tmp_path, "executor")
    assert not crashes.take_unresponsive(tmp_path, "executor")

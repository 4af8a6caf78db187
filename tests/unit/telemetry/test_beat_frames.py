"""Frames, the beat, the clock and the stream of events: pure, as tables and properties."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chorus.telemetry.beat import OWN_INTERVAL_S, Beat
from chorus.telemetry.frames import FRAME_MAX_BYTES, FrameInvalid, StatusClaim, read_beat
from chorus.telemetry.hlc import Clock
from chorus.telemetry.outgoing import Outgoing
from chorus.telemetry.sse import Events

BEAT: dict[str, Any] = {
    "cluster_id": "prod-1",
    "beat_index": 7,
    "downbeat": False,
    "phase": "plan",
    "hlc": "00ff:0001:beef",
    "deadline_at": "2026-01-02T03:04:05.123Z",
    "tempo_bpm": 2,
    "window_id": "0123456789abcdef0123456789abcdef",
}
CLAIM: dict[str, Any] = {"agent_id": "a", "beat_index": 0, "state": "idle", "hlc": "0000:0000:0000"}

FITTING: list[dict[str, Any]] = [
    {},
    {"type": "backbeat.beatframe.v1"},
    {"metadata": {"any": [1, {"thing": None}]}},
    {"cluster_id": "a" * 64},
    {"beat_index": 0},
    {"beat_index": 2**62},
    {"tempo_bpm": 0.1},
    {"tempo_bpm": 1000},
    {"phase": "execute"},
    {"phase": "review"},
    {"downbeat": True},
    {"deadline_at": "2026-01-02T03:04:05+02:00"},
]
NOT_FITTING: list[dict[str, Any]] = [
    {"type": "backbeat.beatframe.v2"},
    {"cluster_id": ""},
    {"cluster_id": "a" * 65},
    {"cluster_id": "a.b"},
    {"cluster_id": "a\n"},
    {"beat_index": -1},
    {"beat_index": 1.5},
    {"beat_index": "7"},
    {"beat_index": True},
    {"downbeat": 0},
    {"downbeat": "false"},
    {"phase": "rest"},
    {"hlc": "00FF:0001:beef"},
    {"hlc": "00ff:0001"},
    {"hlc": "00ff:0001:beef\n"},
    {"deadline_at": "soon"},
    {"deadline_at": 1767323045},
    {"deadline_at": "2026-01-02"},
    {"deadline_at": "2026-01-02T03:04:05"},
    {"tempo_bpm": 0.09},
    {"tempo_bpm": 1000.1},
    {"tempo_bpm": "2"},
    {"tempo_bpm": float("nan")},
    {"tempo_bpm": float("inf")},
    {"tempo_bpm": True},
    {"window_id": "0" * 31},
    {"window_id": "g" * 32},
    {"metadata": []},
    {"more": 1},
]


def frame_of(**change: Any) -> bytes:
    return json.dumps({**BEAT, **change}).encode()


@pytest.mark.parametrize("change", FITTING, ids=str)
def test_a_frame_as_the_page_has_it_fits(change: dict[str, Any]) -> None:
    assert read_beat(frame_of(**change)).beat_index == change.get("beat_index", 7)


@pytest.mark.parametrize("change", NOT_FITTING, ids=str)
def test_a_frame_that_does_not_fit_is_refused_by_its_field(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(FrameInvalid, match="JSON|" + re.escape(name)):
        read_beat(frame_of(**change))


@pytest.mark.parametrize("name", BEAT)
def test_every_field_but_metadata_is_needed(name: str) -> None:
    with pytest.raises(FrameInvalid, match=name):
        read_beat(json.dumps({key: value for key, value in BEAT.items() if key != name}).encode())


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(sorted(BEAT)), inner)


anything = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), objects)


@given(st.binary() | st.text().map(str.encode) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused_by_the_one_error(data: bytes) -> None:
    with pytest.raises(FrameInvalid):
        read_beat(data)


@pytest.mark.parametrize("data", [b"[" * 100_000, b" " * (FRAME_MAX_BYTES + 1), b'{"a":' * 10_000], ids=len)
def test_deep_and_long_frames_are_refused(data: bytes) -> None:
    with pytest.raises(FrameInvalid):
        read_beat(data)


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "a b"},
        {"task_id": "x" * 129},
        {"state": "busy"},
        {"beats_left": 1001},
        {"beats_left": -1},
        {"progress": 1.01},
        {"notes": "x" * 257},
        {"resources": {"cpu_percent": -1}},
        {"resources": {"gpu_percent": 1}},
        {"resources": {"memory_mb": float("nan")}},
        {"dependencies": ["a b"]},
        {"metadata": "x"},
        {"hlc": "0:0:0"},
        {"beat_index": -1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_claim_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    StatusClaim.model_validate_json(json.dumps(CLAIM))
    with pytest.raises(ValidationError):
        StatusClaim.model_validate_json(json.dumps({**CLAIM, **change}))


# The beat


def test_without_a_pulse_two_beats_a_minute() -> None:
    beat = Beat("prod-1", now=100.0)
    assert [now for now in range(100, 221) if beat.tick(now)] == [100, 130, 160, 190, 220]
    assert (beat.index, beat.source) == (5, "own")


def test_a_pulse_is_followed_and_an_own_beat_begins_when_it_is_late() -> None:
    beat = Beat("prod-1", now=0.0)
    beat.tick(0.0)
    assert beat.hear(read_beat(frame_of(beat_index=40)), 10.0) is None
    assert (beat.index, beat.source, beat.interval_s) == (40, "pulse", 30.0)
    # One and a half beats of patience, then its own two a minute go on from there.
    assert [now for now in range(10, 120) if beat.tick(now)] == [55, 85, 115]
    assert (beat.index, beat.source) == (43, "own")
    # The pulse is back, and so is its count.
    assert beat.hear(read_beat(frame_of(beat_index=44)), 120.0) is None
    assert (beat.index, beat.source) == (44, "pulse")


def test_a_slow_pulse_whose_connection_is_gone_is_not_awaited_for_long() -> None:
    beat = Beat("prod-1", now=0.0)
    beat.hear(read_beat(frame_of(tempo_bpm=0.1)), 1.0)
    assert not beat.tick(1 + OWN_INTERVAL_S)
    beat.lost(40.0)
    assert beat.tick(40 + OWN_INTERVAL_S)


def test_what_is_no_new_beat_is_dropped() -> None:
    beat = Beat("prod-1", now=0.0)
    assert beat.hear(read_beat(frame_of()), 1.0) is None
    assert beat.hear(read_beat(frame_of()), 2.0) == "repeat"
    assert beat.hear(read_beat(frame_of(beat_index=8)), 1.001) == "too_fast"
    assert beat.hear(read_beat(frame_of(beat_index=8, cluster_id="other")), 3.0) == "other_cluster"
    assert (beat.index, beat.source) == (7, "pulse")
    # A server that began anew counts from its own beginning.
    assert beat.hear(read_beat(frame_of(beat_index=0, window_id="f" * 32)), 4.0) is None
    assert beat.index == 0


def test_a_pulse_of_another_name_is_followed_until_there_is_one_of_ours() -> None:
    beat = Beat("prod-1", now=0.0)
    assert beat.hear(read_beat(frame_of(cluster_id="other")), 1.0) is None
    assert beat.hear(read_beat(frame_of(beat_index=8)), 2.0) is None
    assert beat.hear(read_beat(frame_of(beat_index=9, cluster_id="other")), 3.0) == "other_cluster"


def test_after_a_sleep_there_is_one_beat() -> None:
    beat = Beat("prod-1", now=0.0)
    assert beat.tick(10_000.0)
    assert beat.tick(10_000.0)
    assert not beat.tick(10_001.0)


# The clock


@given(st.lists(st.integers(0, 2**34), min_size=2))
def test_the_clock_goes_forward_whatever_the_wall_does(walls: list[int]) -> None:
    clock = Clock("peer")
    read = []
    for wall in walls:
        clock.tick(wall)
        read.append((clock._seconds, clock._count))
    assert read == sorted(set(read))


def test_a_clock_moves_past_what_it_hears_unless_that_is_far_ahead() -> None:
    clock = Clock("peer")
    wall = 1_800_000_000
    clock.hear(f"{(wall + 10) % 65536:04x}:0005:0000", wall)
    assert clock.tick(wall).startswith(f"{(wall + 10) % 65536:04x}:0006:")
    clock = Clock("peer")
    clock.hear(f"{(wall + 3600) % 65536:04x}:0005:0000", wall)
    assert clock.tick(wall).startswith(f"{wall % 65536:04x}:0000:")


# Events


def cut_up(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(st.integers(0, 1000)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_however_they_are_cut(places: list[int], end: bytes) -> None:
    lines = [
        b": hello",
        b"event: beat",
        b"id: 1",
        b"data: one",
        b"data:two",
        b"",
        b"",
        b"data",
        b"",
        b"data: x",
        b"",
    ]
    events = Events()
    found = [data for piece in cut_up(end.join(lines) + end, places) for data in events.feed(piece)]
    # With single carriage returns the last line ends only when it is known that no line feed follows.
    assert found == [b"one\ntwo", b"", b"x"]


@given(st.lists(st.binary(max_size=200)))
def test_any_bytes_are_events_or_none(pieces: list[bytes]) -> None:
    events = Events()
    for piece in pieces:
        for data in events.feed(piece):
            assert len(data) <= FRAME_MAX_BYTES + 1


def test_what_is_too_long_is_left_out_and_the_next_is_heard() -> None:
    events = Events()
    long_line = b"data: " + b"x" * (3 * FRAME_MAX_BYTES) + b"\n\n"
    long_event = b"data: yyyyyyyyyyyyyyyy\n" * (FRAME_MAX_BYTES // 8) + b"\n"
    heard = []
    for start in range(0, len(long_line), 1000):
        heard += events.feed(long_line[start : start + 1000])
        assert len(events._line) <= FRAME_MAX_BYTES + 6
    heard += events.feed(long_event)
    heard += events.feed(b"data: short\n\n")
    assert (heard, events.too_large) == ([b"short"], 2)


# What waits


async def test_the_oldest_makes_room() -> None:
    dropped: list[str] = []
    queue = Outgoing(dropped.append, most=2)
    queue.put("status", b"1")
    first = await queue.first()
    queue.put("operation", b"2")
    queue.put("status", b"3")
    assert (dropped, queue.lost, len(queue)) == (["status"], 1, 2)
    # It was dropped while it was being sent: the next one stays.
    queue.done(first)
    assert await queue.first() == ("operation", b"2")

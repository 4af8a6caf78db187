"""The rules are total: whatever an entry says, applying it raises nothing, and all agents come to one
table.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_mesh import STRANGER, T1, T2, T3, A, B, C, Log
from test_recorded_log import recorded

from chorus.table import transitions
from chorus.table.effects import MemoryView, Outcome
from chorus.table.entries import Entry
from chorus.table.json_values import DEPTH_MAX
from chorus.table.reader import TableReader
from chorus.table.records import RECORDS, Member, Task
from chorus.table.store import TableStore
from chorus.table.submitted import TIME_MAX_MS
from chorus.table.transitions import apply
from chorus.table.view import attempt_view, ballot_view, view
from chorus.wire.ids import is_id, new_id

# Entries in one example, and how many entries there are in all.
ENTRIES_MIN, ENTRIES_MAX = 20, 40
CASES = 100_000 if os.environ.get("CHORUS_HEAVY") else 800

TEMPLATES = [(entry.author, entry.type, entry.body) for entry in recorded() if isinstance(entry.body, dict)]


def nested(depth: int) -> Any:
    """A list in a list, and so on."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


BOUNDARIES: list[Any] = [
    None, True, False, 0, -1, 1, 1.0, 0.5, -0.0, 2**31, 2**32, 2**53, 2**53 + 1, -(2**53) - 1, 2**63, 2**64,
    -(2**63) - 1, 10**400, 1e308, float("inf"), float("-inf"), float("nan"), "", "5", "\0", "\n", "\x9b",
    "\ud800", "\udfff", "é", "x" * 129, "x" * 300_000,
    "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "9998-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z",
    "2026-01-01", TIME_MAX_MS, TIME_MAX_MS + 1, A, B, C, STRANGER, T1, T2, "0" * 64,
    "ucxl://b:agent@p:t/*^/x", "../x", "/x", "a//b",
]  # fmt: skip
# Made anew each time: an example changes what it is given.
CONTAINERS: list[Callable[[], Any]] = [
    list, dict, lambda: [{}], lambda: [[]], lambda: {"": None}, lambda: {"\ud800": 1}, lambda: {"x" * 300: 1}
]  # fmt: skip
# What entries have besides: other authors, ids, stamps and indexes seen than usual.
AUTHORS = [A, B, C, STRANGER, "", "\ud800"]
IDS = ["same", "", "\ud800"]
STAMPS = [0, TIME_MAX_MS, TIME_MAX_MS + 1, 2**63 - 1, 2**63, 2**64 - 1]
SEEN = [2**63, 2**64 - 1, -200_000]
NEW = new_id(0, bytes(10))
# Author, type, id, stamp, the index seen, body.
Case = tuple[str, str, str | None, int | None, int, Any]
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)
# Deeper ones have a test of their own: a failing example has to be printed.
DEEP = st.sampled_from([1, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 300]).map(nested)
MADE = st.sampled_from(CONTAINERS).map(lambda make: make())
JSON = st.recursive(
    st.sampled_from(BOUNDARIES) | st.integers() | st.floats() | TEXTS | DEEP | MADE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def at_hand(value: Any, task_id: str) -> Any:
    """The body about a task that the table has, instead of the one in the recording."""
    if isinstance(value, dict):
        return {key: at_hand(inner, task_id) for key, inner in value.items()}
    if isinstance(value, list):
        return [at_hand(inner, task_id) for inner in value]
    return task_id if is_id(value) else value


@st.composite
def said(draw: st.DrawFn) -> Case:
    """Who says what: an entry as agents make it, mostly with something else in one place; or anything at
    all.
    """

    def mostly(usual: Any, *others: Any) -> Any:
        return draw(st.sampled_from(others)) if draw(st.integers(0, 19)) == 19 else usual

    author, type, body = draw(st.sampled_from(TEMPLATES))
    body = at_hand(body, draw(st.sampled_from([T1, T2, T3, NEW])))
    if "attempt" in body:
        body["attempt"] = draw(st.integers(1, 2))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        path = draw(st.sampled_from(sorted(places(body), key=repr)))
        if not path:
            body[draw(TEXTS)] = draw(JSON)
            continue
        inner = body
        for key in path[:-1]:
            inner = inner[key]
        if draw(st.booleans()):
            inner[path[-1]] = draw(JSON)
        else:
            del inner[path[-1]]
    type = mostly(type, "news", "", "invalid", "\ud800")
    if draw(st.integers(0, 19)) == 19:
        body = draw(JSON)
    return mostly(author, *AUTHORS), type, mostly(None, *IDS), mostly(None, *STAMPS), mostly(0, *SEEN), body


def entries_of(cases: list[Case]) -> list[Entry]:
    """A mesh of three with a few tasks, whose founder may bring others along, and then what is said."""
    log = Log(recovers=("m0",))
    log.raise_version()
    log.submit()
    log.run()
    log.submit(T2, submitter=STRANGER)
    log.goal(T3, checks=["true"])
    log.run(T3)
    start = len(log.entries)
    more = [
        Entry(
            start + n,
            log.stamp + 600_000 * n if stamp is None else stamp,
            type,
            f"e{n}" if id is None else id,
            author,
            seen,
            body,
        )
        for n, (author, type, id, stamp, seen, body) in enumerate(cases, 1)
    ]
    return log.entries + more


def content(store: TableStore) -> list[Any]:
    """All that the table holds."""
    return [list(store.records(kind)) for kind in RECORDS]


def read_all(path: Path) -> None:
    """What the API does with a table, to its JSON."""
    reader = TableReader(path)
    for row in reader.tasks(limit=100).items:
        orjson.dumps(view(row, reader.attempts(row.task_id)))
        orjson.dumps([attempt_view(attempt) for attempt in reader.attempts(row.task_id)])
    orjson.dumps([row.agent_id for row in reader.members()])
    for decision in reader.decisions(limit=100).items:
        ballot = reader.ballot(decision.hash)
        orjson.dumps(None if ballot is None else ballot_view(ballot))
    reader.close()


@settings(
    max_examples=CASES // ENTRIES_MIN,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(st.lists(said(), min_size=ENTRIES_MIN, max_size=ENTRIES_MAX), st.integers(1, 20))
def test_nothing_that_json_can_say_raises_and_all_tables_are_equal(cases: list[Case], size: int) -> None:
    entries = entries_of(cases)
    memory = MemoryView()
    for entry in entries:
        outcome = apply(memory, entry)
        assert isinstance(outcome, Outcome)
        assert outcome.reason.isascii() or outcome.reason.encode()
        memory.write(outcome.effects)
    with tempfile.TemporaryDirectory() as folder:
        one, other = TableStore(Path(folder) / "one"), TableStore(Path(folder) / "other")
        one.apply_batch(entries)
        for at in range(0, len(entries), size):
            other.apply_batch(entries[at : at + size])
        assert one.applied == other.applied == len(entries)
        assert content(one) == content(other)
        for kind in RECORDS:
            assert len(memory.records[kind]) == len(list(one.records(kind)))
        read_all(Path(folder) / "one")
        one.close()
        other.close()


ATTACKS: list[tuple[str, dict[str, Any]]] = [
    ("start_by", {"start_by": "9999-12-31T23:59:59-14:00"}),
    ("start_by", {"start_by": "0001-01-01T00:00:00+14:00"}),
    ("start_by", {"start_by": TIME_MAX_MS + 1}),
    ("start_by", {"start_by": -1}),
    ("start_by", {"start_by": 1e3}),
    ("start_by", {"start_by": True}),
    ("start_by", {"start_by": "tomorrow"}),
    ("submitted_at", {"submitted_at": "9999-12-31T23:59:59-14:00"}),
    ("priority", {"priority": "5"}),
    ("priority", {"priority": True}),
    ("priority", {"priority": 5.0}),
    ("commands", {"commands": {"0": "true"}}),
    ("commands", {"commands": "true"}),
    ("env", {"env": [["A", "1"]]}),
    ("timeout_s", {"timeout_s": "900"}),
    ("resources", {"resources": {"cpus": 1, "gpus": 1}}),
    ("task", {"a field of tomorrow": 1}),
]


@pytest.mark.parametrize(("field", "task"), ATTACKS, ids=[f"{n} {f}" for n, (f, _) in enumerate(ATTACKS)])
def test_a_task_that_does_not_fit_is_refused_by_its_field(field: str, task: dict[str, Any]) -> None:
    log = Log()
    outcome = log.submit(**task)
    place = "task" if field == "task" else f"task.{field}"
    assert outcome.reason == f"invalid: {place}: not a value of this field"
    assert log.view.get(Task, T1) is None


BEYOND_JSON: list[tuple[str, Any]] = [
    ("not Unicode", "\ud800"),
    ("beyond 2^53", 10**400),
    ("beyond 2^53", 2**53 + 1),
    ("beyond 2^53", float("nan")),
    ("beyond 2^53", float("inf")),
    ("deep", nested(DEPTH_MAX)),
    ("deep", nested(100_000)),
    ("name is not Unicode", {"\ud800": 1}),
    ("not JSON", b"bytes"),
    ("not JSON", {1, 2}),
]


@pytest.mark.parametrize(("why", "value"), BEYOND_JSON, ids=[f"{n}" for n in range(len(BEYOND_JSON))])
def test_what_agents_might_read_differently_is_refused_even_in_a_field_that_nobody_reads(
    why: str, value: Any
) -> None:
    outcome = Log().say(B, "cancel", task_id=T1, unread=value)
    assert outcome.reason.startswith("the body does not fit: ")
    assert why in outcome.reason


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_a_body_is_an_object(body: Any) -> None:
    log = Log()
    entry = Entry(len(log.entries) + 1, log.stamp, "retry", "x", A, 0, body)
    assert apply(log.view, entry).reason.startswith("the body does not fit")


def test_a_stamp_has_bounds_too() -> None:
    log = Log()
    log.stamp = TIME_MAX_MS
    assert "stamp" in log.say(A, "leader", term=2).reason
    log.stamp = 2**64
    assert "stamp" in log.submit().reason


def test_times_are_kept_as_numbers_whatever_offset_they_are_written_in() -> None:
    for start_by in (90_061_007, "1970-01-02T01:01:01.007Z", "1970-01-02T03:01:01.007+02:00"):
        log = Log()
        assert log.submit(start_by=start_by).accepted
        assert log.task().start_by == 90_061_007


def test_a_name_with_control_characters_keeps_no_member_out() -> None:
    log = Log()
    assert log.say(A, "join", peer="peer-d", agent_id="d\x1b[2J").accepted
    member = log.view.get(Member, "peer-d")
    assert member is not None
    assert member.agent_id == ""


def test_a_mistake_in_a_rule_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> tuple[str, ...]:
        raise RecursionError("something that must not be shown")

    monkeypatch.setitem(transitions._RULES, "retry", broken)
    log = Log()
    outcome = log.say(B, "retry", id="r", task_id=T1)
    assert (outcome.accepted, outcome.reason) == (False, "the rule of this type cannot take it")
    assert log.say(B, "retry", id="r", task_id=T1).repeated


def test_a_long_reason_of_the_last_lost_attempt() -> None:
    log = Log()
    log.submit(max_attempts=1)
    log.run()
    assert log.say(C, "release", task_id=T1, attempt=1, reason="x" * 2000).accepted
    assert log.task().state == "failed"

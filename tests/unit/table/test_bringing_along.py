"""What another mesh had comes into this one by entries: whole, once, and by those who may bring it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_mesh import STRANGER, T1, T2, A, B, C, Log
from test_recorded_log import recorded
from test_table_total import CASES, ENTRIES_MAX, ENTRIES_MIN, Case, entries_of, said

from chorus.table import bounds, export
from chorus.table import imports as rules
from chorus.table.carried import Header, Line, read_header, read_line
from chorus.table.entries import Entry
from chorus.table.reader import TableReader
from chorus.table.records import (
    RECORDS,
    Attempt,
    Ballot,
    Body,
    Counter,
    Decision,
    FormerMember,
    Known,
    Member,
    Part,
    Recorded,
    Superseded,
    Task,
    Version,
)
from chorus.table.store import TableStore
from chorus.table.versions import Pattern
from chorus.wire.ids import is_id

DECISION, OTHER = "d" * 64, "e" * 64
NOT_ITS_OWN = "only the founder of a recovered mesh brings what others did"
ADDRESS = "ucxl://b:agent@p:t/*^/notes"


@contextmanager
def table(entries: list[Entry]) -> Iterator[TableStore]:
    """The entries' table on disk."""
    with tempfile.TemporaryDirectory() as folder:
        store = TableStore(Path(folder) / "table.sqlite")
        store.apply_batch(entries)
        yield store
        store.close()


def exported(store: TableStore, *, recovers: bool = True, own: str | None = None) -> list[Line]:
    """What the table's mesh leaves to another, out of the carry file."""
    lines = export.export(store, origin="m1", recovers=recovers, own=own)
    return [read_line(line.encode()) for line in lines]


def lines_of(log: Log, *, recovers: bool = True, own: str | None = None) -> list[Line]:
    """What a mesh leaves to another."""
    with table(log.entries) as store:
        return exported(store, recovers=recovers, own=own)


def recovered() -> Log:
    """A mesh of A alone that goes on from m1."""
    log = Log(found=False)
    log.say(A, "found", mesh="m2", agent={"agent_id": "a", "max_tasks": 3}, recovers=["m1"])
    log.say(A, "leader", term=1)
    log.raise_version(A)
    return log


def bring(log: Log, lines: list[Line], author: str = A) -> list[str]:
    """Says what is brought along; the reasons of what was refused."""
    outcomes = [log.enter(author, line.type, line.body, id=line.id) for line in lines]
    return [outcome.reason for outcome in outcomes if not outcome.accepted]


def full() -> Log:
    """A mesh with something of everything."""
    log = Log()
    log.raise_version()
    log.submit(submitted_by="alice", project="p", description="d")
    log.run()
    log.say(A, "reoffer", task_id=T1, attempt=1, reason="the lease is over")
    log.run(agent=B, attempt=2)
    assert log.result(attempt=1).reason.startswith("superseded")
    log.result(B, attempt=2, summary="done", commands=[{"command": "true", "exit_code": 0}])
    body = {"kind": "task_result", "address": "ucxl://b:agent@p:t/*^/2/decision.json", "size": 7}
    log.say(B, "decision", task_id=T1, attempt=2, hash=DECISION, **body)
    log.say(A, "ballot", hash=DECISION, quorum=2, voters=[A, B, C], open_ms=60_000)
    log.say(B, "vote", hash=DECISION, round=1, choice="approve", by="bob", reason="good")
    log.say(B, "remove", task_id=T1, by="alice")
    log.submit(T2, submitter=STRANGER, depends_on=[T1])
    log.run(T2)
    log.say(B, "version", address=ADDRESS, hash="1" * 64, size=3, content_type="text/plain")
    log.say(C, "version", address=ADDRESS, hash="2" * 64)
    log.say(C, "version", address=ADDRESS, tombstone=True)
    log.say(A, "removal", peer=C, raft_id=4, reason="away")
    return log


def what_readers_see(store: TableStore) -> dict[str, Any]:
    """All that a reader shows, apart from places in the log and the list of members."""
    reader = TableReader(store.path)
    try:
        tasks = [row.task_id for row in reader.tasks(limit=500).items]
        stories = [reader.story(task_id) for task_id in tasks]
        decisions = [replace(row, index=0) for row in reader.decisions(limit=500).items]
        ballots = [reader.ballot(row.hash) for row in decisions]
        pattern = reader.ucxl.query(Pattern(), every=True, deleted=True, limit=500).items
        return {
            "tasks": {story.row.task_id: story for story in stories if story is not None},
            "decisions": sorted(decisions, key=lambda row: row.hash),
            "ballots": {ballot.hash: ballot for ballot in ballots if ballot is not None},
            "versions": {(row.address, row.version): replace(row, index=0) for row in pattern},
            "superseded": {
                (one.task_id, one.attempt, one.author): one.result for one in store.records(Superseded)
            },
            "counts": reader.ucxl.counts(),
        }
    finally:
        reader.close()


def waiting_again(seen: dict[str, Any], store: TableStore) -> dict[str, Any]:
    """What readers saw, but for what recovery does to attempts that were under way."""
    tasks = dict(seen["tasks"])
    for task_id, story in tasks.items():
        # Members of the mesh that is no more are known by their names, and by nothing else.
        attempts = tuple(
            replace(one, state="lost", reason=export.RECOVERED, finished_at=None) if one.open else one
            for one in story.attempts
        )
        row, changes = story.row, story.changes
        if row.open and row.agent is not None:
            row = replace(
                row, state="announced", reason=export.RECOVERED, agent=None, agent_id=None, claimed_at=None,
                started_at=None, pulling_s=None, waiting_s=None, running_s=None,
            )  # fmt: skip
            changes = (*changes, None)
        tasks[task_id] = replace(story, row=row, attempts=attempts, changes=changes)
    return {**seen, "tasks": tasks}


def without_new_times(seen: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What readers see now, without the time at which open attempts ended."""
    tasks = dict(seen["tasks"])
    for task_id, story in tasks.items():
        was = before["tasks"].get(task_id)
        open_before = {one.attempt for one in was.attempts if one.open} if was is not None else set()
        attempts = tuple(
            replace(one, finished_at=None) if one.attempt in open_before else one for one in story.attempts
        )
        changes = story.changes
        if was is not None and len(changes) == len(was.changes) + 1:
            changes = (*changes[:-1], None)
        tasks[task_id] = replace(story, attempts=attempts, changes=changes)
    return {**seen, "tasks": tasks}


def check_whole(entries: list[Entry]) -> None:
    """A recovered mesh shows what the old one did, and saying it again changes nothing."""
    with table(entries) as old:
        before = what_readers_see(old)
        expected = waiting_again(before, old)
        lines = exported(old)
    log = recovered()
    log.stamp = max(log.stamp, *(entry.stamp_ms for entry in entries if entry.stamp_ms < 2**40), 0)
    # A life before came as far as this, and its entries are forgotten.
    for line in lines[: len(lines) // 3]:
        log.enter(A, line.type, line.body)
    # Names of members that are there anyway are not brought along.
    assert all(reason.startswith(rules.KNOWN) for reason in bring(log, lines))
    with table(log.entries) as new:
        assert without_new_times(what_readers_see(new), before) == expected
        content = {kind: list(new.records(kind)) for kind in RECORDS if kind is not Known}
    for line in lines:
        log.enter(A, line.type, line.body)
    with table(log.entries) as again:
        assert {kind: list(again.records(kind)) for kind in RECORDS if kind is not Known} == content


def test_a_recovered_mesh_has_what_the_old_one_had() -> None:
    check_whole(full().entries)


def test_all_that_was_ever_recorded_can_be_brought_along() -> None:
    check_whole(recorded("0.5"))


@settings(
    max_examples=CASES // ENTRIES_MIN // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(st.lists(said(), min_size=ENTRIES_MIN, max_size=ENTRIES_MAX))
def test_any_table_can_be_brought_along(cases: list[Case]) -> None:
    check_whole(entries_of(cases))


def test_lines_say_the_same_whenever_they_are_made() -> None:
    lines = lines_of(full())
    assert lines == lines_of(full())
    assert len({line.id for line in lines}) == len(lines)
    assert all(is_id(line.id) for line in lines)
    types = {line.type for line in lines}
    assert types == {"import_member", "import_task", "import_decision", "import_ballot", "import_version"}


def test_what_is_no_line_or_header_is_refused_by_the_reader() -> None:
    for text in (b"", b"[]", b"{", b'{"id": "x", "type": "t", "body": {}}', b'{"id": 1}', b"null"):
        with pytest.raises(ValueError, match=r"carry file|line|column"):
            read_line(text)
    with pytest.raises(ValueError, match="header"):
        read_header(b'{"id": 1}')
    assert read_header(Header("m1", True).encode()) == Header("m1", True)


def test_lines_about_one_thing_have_one_subject() -> None:
    lines = lines_of(full())
    subjects = {line.type: line.subject for line in lines}
    assert subjects["import_decision"] == subjects["import_ballot"] == DECISION
    assert subjects["import_version"].startswith("ucxl://")
    assert {line.subject for line in lines if line.type == "import_task"} == {T1, T2}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stories that come in parts of a few characters."""
    monkeypatch.setattr(export, "STORY_MAX_BYTES", 300)
    monkeypatch.setattr(export, "PART_MAX_CHARS", 100)


@pytest.mark.usefixtures("short")
def test_what_is_too_long_for_an_entry_comes_in_parts() -> None:
    log, lines = recovered(), lines_of(full())
    assert sum(line.type == "import_part" for line in lines) > 10
    check_whole(full().entries)
    assert bring(log, lines) == ["known: that peer is or was a member"]
    # Nothing is left of them.
    assert log.view.records[Part] == {}


@pytest.mark.usefixtures("short")
def test_nothing_is_seen_of_a_story_whose_parts_are_not_all_there() -> None:
    log, lines = recovered(), lines_of(full())
    story = [line for line in lines if line.subject == T1]
    *parts, last = story
    assert bring(log, parts[1:]) == []
    assert bring(log, [last]) == ["a part of it is missing"]
    assert (log.view.get(Task, T1), log.view.get(Attempt, T1, 1)) == (None, None)
    # Another task under that id meanwhile: it stays what it is, and the parts go.
    assert log.submit(author=A).accepted
    assert log.enter(A, "import_task", last.body).reason.startswith(rules.KNOWN)
    assert log.enter(A, "import_part", parts[0].body).reason.startswith(rules.KNOWN)
    assert log.view.records[Part] == {}
    assert (log.task().state, log.view.get(Recorded, T1, 2)) == ("announced", None)


def test_a_task_that_is_there_stays_as_it_is() -> None:
    log = recovered()
    log.submit(author=A, title="mine")
    refused = bring(log, lines_of(full()))
    assert "known: there is a task with that id" in refused
    body = log.view.get(Body, T1)
    assert body is not None
    assert body.task["title"] == "mine"
    assert log.task().attempt == 0


def test_attempts_under_way_are_lost_and_do_not_count_against_the_task() -> None:
    log = recovered()
    bring(log, lines_of(full()))
    task, attempt = log.task(T2), log.attempt(1, T2)
    assert (task.state, task.agent, task.attempt, task.lost) == ("announced", None, 1, 0)
    assert (attempt.state, attempt.reason) == ("lost", "the mesh was recovered")
    assert attempt.finished_at is not None
    log.say(A, "join", peer=C, agent_id="c")
    assert log.say(A, "award", task_id=T2, attempt=2, agent=C).accepted
    # Until the next attempt is awarded a result of the lost one would have counted.
    assert log.result(task_id=T2).reason.startswith("superseded")


def test_a_result_that_was_never_said_counts_after_the_task_was_brought_along() -> None:
    log = recovered()
    bring(log, lines_of(full()))
    log.say(A, "join", peer=C, agent_id="c")
    assert log.result(task_id=T2).accepted
    assert log.task(T2).state == "completed"


def test_open_tasks_count_even_where_the_mesh_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_MESH", 1)
    old = Log()
    for task_id in (T1, T2):
        monkeypatch.setattr(bounds, "OPEN_MAX_PER_MESH", 2)
        assert old.submit(task_id).accepted
    lines = lines_of(old)
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_MESH", 1)
    log = recovered()
    bring(log, lines)
    assert log.view.get(Counter, bounds.MESH) == Counter(bounds.MESH, 2)
    assert log.view.get(Counter, bounds.submitter_counter("b")) == Counter("open:b", 2)
    assert log.submit("0" * 26, author=A).reason.startswith("limit")
    log.say(A, "cancel", task_id=T1)
    log.say(A, "cancel", task_id=T2)
    assert log.view.get(Counter, bounds.MESH) == Counter(bounds.MESH, 0)


def test_a_cancel_that_was_there_first_ends_the_task() -> None:
    log = recovered()
    log.say(A, "cancel", task_id=T2, by="alice")
    bring(log, lines_of(full()))
    assert (log.task(T2).state, log.task(T2).reason) == ("cancelled", "cancelled by alice")
    assert log.view.get(Counter, bounds.STRANGERS) is None


# A lone agent's mesh, brought into another.


def lone(author: str = B) -> Log:
    """A mesh that B alone was in, with a task that ended, one under way, a vote, and a shared address."""
    log = Log(found=False)
    log.say(author, "found", mesh="m1", agent={"agent_id": "b", "max_tasks": 3})
    log.say(author, "leader", term=1)
    for task_id in (T1, T2):
        log.submit(task_id, author=author)
        assert log.say(author, "award", task_id=task_id, attempt=1, agent=author).accepted
        assert log.say(author, "claim", task_id=task_id, attempt=1).accepted
    log.result(author)
    log.say(author, "decision", task_id=T1, attempt=1, hash=DECISION, kind="task_result")
    log.say(author, "ballot", hash=DECISION, quorum=1, voters=[author], open_ms=60_000)
    log.say(author, "vote", hash=DECISION, round=1, choice="approve")
    for number in (1, 2):
        log.say(author, "version", address=ADDRESS, hash=str(number) * 64)
    return log


def mesh_of_three() -> Log:
    log = Log()
    log.raise_version()
    log.say(C, "version", address=ADDRESS, hash="9" * 64)
    return log


def test_a_lone_agents_mesh_comes_into_another_with_its_versions_after_those_there() -> None:
    log = mesh_of_three()
    lines = lines_of(lone(), recovers=False, own=B)
    assert not any(line.type == "import_member" for line in lines)
    assert bring(log, lines, author=B) == []
    assert (log.task(T1).state, log.task(T2).state) == ("completed", "announced")
    assert log.attempt(1, T2).reason == "the agent left its mesh"
    versions = [log.view.get(Version, ADDRESS, number) for number in (1, 2, 3)]
    assert [version.hash[0] for version in versions if version is not None] == ["9", "1", "2"]
    ballot = log.view.get(Ballot, DECISION)
    assert ballot is not None
    assert (ballot.state, ballot.approve, ballot.voters) == ("approved", 1, (B,))
    # Under other entry ids, as when the first are long forgotten.
    again = [replace(line, id="0" * 25 + str(n % 10)) for n, line in enumerate(lines)]
    assert all(log.enter(B, line.type, line.body).reason.startswith(rules.KNOWN) for line in again)
    assert log.view.get(Version, ADDRESS, 4) is None


def test_only_what_is_the_authors_own_comes_from_a_member() -> None:
    log = mesh_of_three()
    lines = lines_of(lone(), recovers=False, own=B)
    refused = bring(log, lines, author=C)
    assert set(refused) == {
        NOT_ITS_OWN,
        "unknown: no such decision",
    }
    assert log.view.get(Task, T1) is None
    with table(lone().entries) as store:
        assert exported(store, recovers=False, own=C) == []


def test_in_a_recovered_mesh_the_founder_alone_brings_what_others_did() -> None:
    log = recovered()
    log.say(A, "join", peer=B, agent_id="b")
    lines = [line for line in lines_of(full()) if line.type == "import_version" and line.body["author"] == C]
    assert set(bring(log, lines, author=B)) == {NOT_ITS_OWN}
    assert bring(log, [replace(line, id=f"a{n}") for n, line in enumerate(lines)], author=A) == []


def test_a_vote_is_brought_with_its_decision_alone() -> None:
    log = mesh_of_three()
    log.submit(T2, author=A)
    log.run(T2)
    log.say(C, "decision", task_id=T2, attempt=1, hash=OTHER, kind="task_result")
    lines = [line for line in lines_of(lone(), recovers=False, own=B) if line.type == "import_ballot"]
    body = {**lines[0].body, "hash": OTHER}
    assert log.enter(B, "import_ballot", body).reason == NOT_ITS_OWN


def test_former_members_are_known_by_name_in_a_recovered_mesh() -> None:
    log = recovered()
    bring(log, lines_of(full()))
    gone = [log.view.get(FormerMember, peer) for peer in (B, C)]
    assert [(one.agent_id, one.raft_id, one.reason) for one in gone if one is not None] == [
        ("b", 0, "the mesh was recovered"),
        ("c", 0, "away"),
    ]
    assert log.view.get(Member, B) is None
    log.say(A, "join", peer=B, agent_id="b")
    assert log.view.get(FormerMember, B) is None


STORY: dict[str, Any] = {
    "task": {"title": "t", "commands": ["true"]}, "state": "announced", "submitter": B, "submitted_by": "b",
    "vouched_by": B, "created_at": 1,
}  # fmt: skip
ATTEMPT: dict[str, Any] = {"attempt": 1, "agent": B, "state": "failed", "awarded_at": 1, "finished_at": 2}
UNFIT: list[tuple[str, dict[str, Any]]] = [
    ("story.state", {"state": "completed"}),
    ("story.state", {"finished_at": 5}),
    ("story.state", {"state": "running"}),
    ("story.state", {"removed": {"at_ms": 1}}),
    ("story.attempts", {"attempts": [ATTEMPT]}),
    ("story.attempts", {"attempt": 1, "attempts": [ATTEMPT, ATTEMPT]}),
    ("story.attempts", {"attempt": 1, "attempts": [{**ATTEMPT, "result": {"outcome": "well"}}]}),
    ("story.task", {"task": {"title": ""}}),
    ("story.created_at", {"created_at": -1}),
]


@pytest.mark.parametrize(("field", "more"), UNFIT, ids=[f"{n} {f}" for n, (f, _) in enumerate(UNFIT)])
def test_a_story_that_does_not_fit_is_refused_by_its_field(field: str, more: dict[str, Any]) -> None:
    log = mesh_of_three()
    assert log.say(B, "import_task", task_id=T1, story=STORY).accepted
    outcome = log.say(B, "import_task", task_id=T2, story={**STORY, **more})
    assert outcome.reason.startswith(f"the body does not fit: {field}: ")
    assert log.view.get(Task, T2) is None


def test_parts_that_are_no_story_are_refused() -> None:
    log = mesh_of_three()
    for text in ("{", "[]", '{"task": 1e400}', "[" * 100_000):
        for n, start in enumerate(range(0, len(text), 50_000)):
            assert log.say(B, "import_part", of=T1, n=n, text=text[start : start + 50_000]).accepted
        assert "does not fit" in log.say(B, "import_task", task_id=T1, parts=n + 1).reason


def test_imports_count_from_version_2_on() -> None:
    log = Log()
    assert log.say(B, "import_task", task_id=T1, story=STORY).reason.startswith("unknown: this version")


def test_decisions_of_a_time_are_found_whatever_place_they_have(tmp_path: Path) -> None:
    old = lone()
    log = Log()
    log.raise_version()
    log.stamp = old.stamp + 1_000_000
    log.say(A, "decision", hash=OTHER, kind="note")
    lines = lines_of(old, recovers=False, own=B)
    bring(log, lines, author=B)
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(log.entries)
    brought, native = store.get(Decision, DECISION), store.get(Decision, OTHER)
    assert brought is not None
    assert native is not None
    assert brought.at_ms < native.at_ms
    assert brought.idx > native.idx
    reader = TableReader(tmp_path / "table.sqlite")
    since = [row.hash for row in reader.decisions(since_ms=native.at_ms).items]
    assert since == [OTHER]
    assert [row.hash for row in reader.decisions(since_ms=brought.at_ms).items] == [DECISION, OTHER]
    reader.close()
    store.close()


def test_what_is_there_is_known_before_it_is_said() -> None:
    log, lines = recovered(), lines_of(full())
    there = [line for line in lines if rules.is_there(log.view, line.type, line.body)]
    assert [line.subject for line in there] == [A]
    bring(log, lines)
    assert all(rules.is_there(log.view, line.type, line.body) for line in lines)

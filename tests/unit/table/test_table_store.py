"""The store against the rules: equal on all replicas whatever the batches, restarts and crashes were."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_mesh import T1, T2, A, B, C, Log

from chorus.config import MeshSettings
from chorus.table.effects import MemoryView
from chorus.table.entries import Entry
from chorus.table.members import TABLE_VERSION
from chorus.table.reader import SUMMARY_MAX_CHARS, TableReader
from chorus.table.records import RECORDS, Attempt, Task
from chorus.table.rows import LONG_FIELDS, OPEN_ATTEMPTS
from chorus.table.store import TableForm, TableGap, TableStore, TableTooNew
from chorus.table.transitions import apply
from chorus.table.view import listed_view, view
from chorus.wire.ids import new_id

PEERS = (A, B, C)
TASKS = (T1, T2)
HASHES = st.sampled_from(["0" * 64, "1" * 64])
KINDS = st.sampled_from(["task_result", "hmmm_outcome", "vote"])


@st.composite
def _said(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], str | None]:
    type = draw(
        st.sampled_from(
            ["submit", "award", "award", "award", "claim", "claim", "started", "result", "result", "release",
             "reoffer", "cancel", "retry", "decline", "leader", "presence", "expire",
             "dependency_failed", "waiting", "decision",
             "decision", "ballot", "vote", "vote", "ballot_end", "version", "version"]
        )
    )  # fmt: skip
    author = draw(st.sampled_from(PEERS))
    task_id = draw(st.sampled_from(TASKS))
    body: dict[str, Any] = {"task_id": task_id, "attempt": draw(st.integers(1, 5))}
    if type == "submit":
        start_by = draw(st.sampled_from([None, "1970-01-01T00:16:42Z"]))
        task = {"title": "t", "max_attempts": draw(st.integers(1, 2)), "start_by": start_by}
        task["depends_on"] = [T1] if task_id == T2 and draw(st.booleans()) else []
        body |= {"task": task, "submitter": draw(st.sampled_from([author, "peer-x"])), "vouched_by": author}
    elif type == "award":
        body["agent"] = draw(st.sampled_from(PEERS))
    elif type == "result":
        body["outcome"] = draw(st.sampled_from(["completed", "failed", "cancelled"]))
    elif type == "leader":
        body = {"term": draw(st.integers(1, 4))}
    elif type == "presence":
        body = {"peer": draw(st.sampled_from(PEERS)), "present": draw(st.booleans())}
    elif type == "waiting":
        body = {"tasks": [{"task_id": task_id, "reason": draw(st.sampled_from(["x", "y"]))}]}
    elif type == "decision":
        address = draw(st.sampled_from(["ucxl://a", "ucxl://b:agent@p:t/*^/x"]))
        body |= {"hash": draw(HASHES), "address": address, "kind": draw(KINDS), "decides": draw(HASHES)}
    elif type in ("ballot", "vote", "ballot_end"):
        body = {"hash": draw(HASHES), "round": draw(st.integers(1, 2)), "choice": "approve"}
        body |= {
            "quorum": draw(st.integers(1, 3)),
            "voters": list(PEERS),
            "open_ms": draw(st.integers(0, 300)),
        }
    elif type == "version":
        flags = draw(st.sampled_from([{}, {}, {"create": True}, {"expect": 2}, {"tombstone": True}]))
        body = {"address": f"ucxl://b:agent@p:t/*^/{draw(st.sampled_from('xy'))}", "hash": "2" * 64, **flags}
    return author, type, body, draw(st.sampled_from([None, None, None, "repeated"]))


def _log(said: list[tuple[str, str, dict[str, Any], str | None]]) -> Log:
    log = Log()
    for author, type, body, id in said:
        # Mostly what the leader and the executor would say, so that runs get far.
        if (
            type in ("award", "reoffer", "expire", "dependency_failed", "waiting", "ballot")
            and body.get("attempt", 2) > 1
        ):
            author = A
        task = log.view.get(Task, str(body.get("task_id")))
        if task is not None and "attempt" in body and type != "submit":
            body = (
                {**body, "attempt": task.attempt + (1 if type == "award" else 0)}
                if body["attempt"] > 2
                else body
            )
            attempt = log.view.get(Attempt, task.task_id, body["attempt"])
            if (
                attempt is not None
                and type in ("claim", "started", "result", "decline")
                and body["attempt"] != 2
            ):
                author = attempt.agent
        log.say(author, type, id=id, **body)
    return log


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_said(), max_size=60))
def test_what_must_always_hold(said: list[tuple[str, str, dict[str, Any], str | None]]) -> None:
    view = MemoryView()
    counted: dict[str, int] = {}
    for entry in _log(said).entries:
        outcome = apply(view, entry)
        view.write(outcome.effects)
        if entry.type == "result" and outcome.accepted and not outcome.repeated:
            task = view.get(Task, entry.body["task_id"])
            assert task is not None
            assert task.finished_at is not None
            counted[task.task_id] = counted.get(task.task_id, 0) + 1
        if entry.type == "retry" and outcome.accepted and not outcome.repeated:
            counted[entry.body["task_id"]] = 0
        assert all(count <= 1 for count in counted.values())
        for task_id in TASKS:
            task = view.get(Task, task_id)
            attempts = [
                a for a in view.records[Attempt].values() if isinstance(a, Attempt) and a.task_id == task_id
            ]
            under_way = [a for a in attempts if a.state in OPEN_ATTEMPTS]
            assert len(under_way) <= 1
            assert [a.attempt for a in attempts] == list(range(1, len(attempts) + 1))
            assert all((a.finished_at is None) == (a.state in OPEN_ATTEMPTS) for a in attempts)
            if task is None:
                assert not attempts
                continue
            assert task.attempt == len(attempts)
            assert not under_way or (task.finished_at is None and under_way[0].attempt == task.attempt)
            assert (task.agent is not None and task.finished_at is None) == bool(under_way)
            assert task.lost <= task.max_attempts


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_said(), max_size=50), st.data())
def test_the_store_equals_the_rules_for_any_batches_and_restarts(
    said: list[tuple[str, str, dict[str, Any], str | None]], data: st.DataObject
) -> None:
    log = _log(said)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.sqlite"
        store = TableStore(path)
        at = 0
        while at < len(log.entries):
            size = data.draw(st.integers(1, 20))
            # Some entries come twice, as they do after a restart.
            store.apply_batch(log.entries[max(0, at - 2) : at + size])
            at += size
            if data.draw(st.booleans()):
                store.close()
                store = TableStore(path)
        assert store.applied == len(log.entries)
        for kind in RECORDS:
            assert list(store.records(kind)) == sorted(
                log.view.records[kind].values(),
                key=lambda record: [getattr(record, name) for name in record.KEY],
            )
        store.close()


def test_a_failed_commit_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    log = Log()
    log.submit()
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(log.entries[:4])
    other = sqlite3.connect(tmp_path / "table.sqlite", isolation_level=None)
    other.execute("DROP TABLE bodies")
    with pytest.raises(sqlite3.Error):
        store.apply_batch(log.entries[4:])
    assert store.applied == 4
    assert store.get(Task, T1) is None


def test_nothing_is_skipped(tmp_path: Path) -> None:
    log = Log()
    store = TableStore(tmp_path / "table.sqlite")
    with pytest.raises(TableGap):
        store.apply_batch(log.entries[1:])
    assert store.applied == 0


def test_an_unknown_type_stops_nothing(tmp_path: Path) -> None:
    log = Log()
    store = TableStore(tmp_path / "table.sqlite")
    entries = [*log.entries, Entry(5, 0, "news", "n", A, 4, {}), Entry(6, 0, "", "", "", 0, None)]
    assert len(store.apply_batch(entries)) == 6
    assert (store.applied, store.blocked) == (6, None)


def test_a_version_of_the_table_beyond_this_release_stops_applying(tmp_path: Path) -> None:
    log = Log()
    log.raise_version()
    for peer in PEERS:
        log.say(peer, "member", agent_id="x", table_version=TABLE_VERSION + 1)
    before = len(log.entries)
    log.say(A, "table_version", version=TABLE_VERSION + 1)
    log.say(A, "retry", task_id=T1)
    store = TableStore(tmp_path / "table.sqlite")
    assert len(store.apply_batch(log.entries)) == before
    assert store.applied == before
    what = f"entry {before + 1} raises the mesh's table to version {TABLE_VERSION + 1}"
    with pytest.raises(TableTooNew, match=what):
        store.apply_batch(log.entries[before:])


def test_a_table_of_an_older_form_is_made_anew_and_one_of_a_newer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.sqlite"
    log = Log()
    log.submit()
    store = TableStore(path)
    store.apply_batch(log.entries)
    reader = TableReader(path)
    assert reader.task(T1) is not None
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE tasks DROP COLUMN stranger")
        db.execute("PRAGMA user_version = 2")
    store = TableStore(path)
    assert (store.rebuilt, store.applied, reader.task(T1)) == (True, 0, None)
    store.apply_batch(log.entries)
    # Readers that had the old file open see the new table.
    assert reader.task(T1) is not None
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(TableForm, match="form 99"):
        TableStore(path)


def test_a_damaged_row_is_the_disks_fault_and_not_the_entrys(tmp_path: Path) -> None:
    log = Log()
    log.submit()
    path = tmp_path / "table.sqlite"
    store = TableStore(path)
    store.apply_batch(log.entries)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tasks SET holders = 'no JSON'")
    store.close()
    store = TableStore(path)
    log.say(B, "cancel", task_id=T1)
    with pytest.raises(sqlite3.DatabaseError, match="damaged in tasks"):
        store.apply_batch(log.entries)
    assert store.applied == len(log.entries) - 1


def test_the_reader_tells_a_tasks_story(tmp_path: Path) -> None:
    path = tmp_path / "table.sqlite"
    reader = TableReader(path)
    assert reader.applied() == 0
    assert reader.mesh() is None
    log = Log()
    log.submit(submitted_by="alice", project="p")
    log.run()
    store = TableStore(path)
    store.apply_batch(log.entries)
    assert reader.applied() == len(log.entries)
    mesh = reader.mesh()
    assert mesh is not None
    assert (mesh.mesh, mesh.leader, mesh.leader_agent_id) == ("m1", A, "a")
    assert mesh.settings == MeshSettings()
    assert [attempt.attempt for attempt in reader.running_on(C)] == [1]
    member = reader.member(C)
    assert member is not None
    assert member.active == 1
    assert [row.peer for row in reader.members()] == [A, B, C]
    log.result(commands=[{"command": "true", "exit_code": 0, "duration_s": 0.1}], ended_by="exit")
    store.apply_batch(log.entries)
    task = reader.task(T1)
    assert task is not None
    assert (task.state, task.agent_id, task.submitted_by, task.pulling_s) == ("completed", "c", "alice", 0.5)
    assert (task.waiting_s, task.running_s) == (0.2, 0.1)
    shown = view(task, reader.attempts(T1), leader="a", replicas=2)
    assert shown["result"]["exit_code"] == 0
    assert shown["created_at"] == "1970-01-01T00:16:40.500Z"
    assert shown["attempts"][0]["state"] == "completed"
    assert [change.state for change in reader.history(T1)][-1] == "completed"
    assert reader.open_tasks() == []


def test_lists_leave_out_what_is_long(tmp_path: Path) -> None:
    log = Log()
    log.submit(T1, description="d" * 60_000, stdin="s" * 60_000, env={"A": "b"}, project="p")
    log.run(T1)
    result = {"outcome": "completed", "exit_code": 0, "ended_by": "exit", "summary": "é" * 9000}
    log.say(C, "result", task_id=T1, attempt=1, **result)
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(log.entries)
    reader = TableReader(tmp_path / "table.sqlite")
    (row,), whole = reader.tasks().items, reader.task(T1)
    assert whole is not None
    assert whole.task["description"]
    assert row.task == {key: value for key, value in whole.task.items() if key not in LONG_FIELDS}
    assert row.result == {"exit_code": 0, "ended_by": "exit", "summary": "é" * SUMMARY_MAX_CHARS}
    assert replace(row, task=whole.task, result=whole.result) == whole
    # A file from elsewhere may hold what SQLite does not read.
    store._db.execute("UPDATE bodies SET task = '[' || task")
    assert reader.tasks().items[0].task == {}
    orjson.dumps(listed_view(reader.tasks().items[0]))


def test_lists_go_by_pages_and_filters(tmp_path: Path) -> None:
    log = Log()
    ids = [new_id() for _ in range(7)]
    for n, task_id in enumerate(ids):
        log.submit(task_id, project="even" if n % 2 == 0 else "", submitted_by=f"s{n % 3}")
    log.run(ids[2])
    for n in range(3):
        log.say(C, "decision", task_id=ids[2], attempt=1, hash=str(n) * 64, address=f"ucxl://{n}")
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(log.entries)
    reader = TableReader(tmp_path / "table.sqlite")
    page = reader.tasks(limit=3)
    assert [row.task_id for row in page.items] == [ids[6], ids[5], ids[4]]
    page = reader.tasks(limit=3, cursor=page.next)
    assert [row.task_id for row in page.items] == [ids[3], ids[2], ids[1]]
    page = reader.tasks(limit=3, cursor=page.next)
    assert ([row.task_id for row in page.items], page.next) == ([ids[0]], None)
    assert len(reader.tasks(project="even").items) == 4
    assert len(reader.tasks(submitted_by="s0").items) == 3
    assert [row.task_id for row in reader.tasks(agent="c", state="running").items] == [ids[2]]
    first = reader.decisions(limit=2)
    assert [row.hash[0] for row in first.items] == ["2", "1"]
    assert [row.hash[0] for row in reader.decisions(limit=2, cursor=first.next, task_id=ids[2]).items] == [
        "0"
    ]
    among = [str(n) * 64 for n in (1, 5, 2, 0)]
    assert [row.hash[0] for row in reader.decisions_among(among, agent="c")] == ["1", "2", "0"]
    assert list(reader.decisions_among(among, kind="vote")) == []
    with pytest.raises(ValueError, match="invalid literal"):
        reader.tasks(cursor="x")


def test_lists_use_indexes(tmp_path: Path) -> None:
    TableStore(tmp_path / "table.sqlite").close()
    db = sqlite3.connect(tmp_path / "table.sqlite")
    for where in (
        "t.state = ?",
        "t.agent IS NOT NULL AND t.agent = ?",
        "t.project <> '' AND t.project = ?",
        "t.submitted_by = ?",
        "t.finished_at IS NULL",
    ):
        values = ("x",) if "?" in where else ()
        plan = db.execute(
            f"EXPLAIN QUERY PLAN SELECT t.idx FROM tasks t WHERE {where} ORDER BY t.idx DESC LIMIT 5", values
        )
        steps = " ".join(row[3] for row in plan)
        assert "USING INDEX tasks_" in steps or "USING COVERING INDEX tasks_" in steps
        assert "TEMP B-TREE" not in steps

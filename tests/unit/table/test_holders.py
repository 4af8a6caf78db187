"""Entries that name holders, and what readers learn from them when members are removed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from table_mesh import T1, T2, A, B, C, Log

from chorus.table.holders import HOLDERS_MAX
from chorus.table.reader import TableReader
from chorus.table.records import INPUTS, Holding, Member
from chorus.table.store import TableStore

SOURCE = {"kind": "archive", "sha256": "a" * 64}


def raised(*others: str) -> Log:
    """A log whose table is at version 2, with more members."""
    log = Log()
    for peer in others:
        log.say(A, "join", peer=peer, agent_id=peer)
    for peer in (A, B, C, *others):
        assert log.say(
            peer, "member", agent_id=peer.removeprefix("peer-"), max_tasks=9, table_version=2
        ).accepted
    assert log.say(A, "table_version", version=2).accepted
    return log


def submitted(log: Log, task_id: str = T1, holders: tuple[str, ...] = (B,)) -> None:
    body = {"title": "t", "commands": ["true"], "source": SOURCE, "stdin_sha256": "b" * 64}
    said = log.say(B, "submit", task_id=task_id, task=body, submitter=B, vouched_by=B, holders=list(holders))
    assert said.accepted, said.reason


def read(log: Log, folder: Path, *removed: str) -> TableReader:
    """The table that the log makes, without some of its members."""
    path = folder / "table.sqlite"
    store = TableStore(path)
    store.apply_batch(log.entries)
    store.close()
    with sqlite3.connect(path) as db:
        # As the entry `removal` leaves it.
        db.executemany("DELETE FROM members WHERE peer = ?", [(peer,) for peer in removed])
    return TableReader(path)


def test_a_holder_names_another_and_everyone_names_itself() -> None:
    log = raised()
    submitted(log)
    assert log.say(C, "holders", task_id=T1, peer=A).reason == "only a holder names another"
    assert log.say(B, "holders", task_id=T1, peer=A).accepted
    assert log.say(C, "holders", task_id=T1, peer=C).accepted
    holding = log.view.get(Holding, T1, INPUTS)
    assert holding is not None
    assert holding.peers == (B, A, C)
    assert log.say(A, "holders", task_id=T1, peer=C).reason == "known: it is named as a holder"


def test_an_attempts_executor_holds_what_it_left() -> None:
    log = raised()
    submitted(log)
    assert log.say(C, "holders", task_id=T1, attempt=1, peer=A).reason == "no such attempt"
    log.run()
    assert log.result().accepted
    assert log.say(B, "holders", task_id=T1, attempt=1, peer=A).reason == "only a holder names another"
    assert log.say(C, "holders", task_id=T1, attempt=1, peer=A).accepted
    holding = log.view.get(Holding, T1, 1)
    assert holding is not None
    assert holding.peers == (C, A)
    assert log.view.get(Holding, T1, INPUTS) is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"task_id": T2, "peer": A}, "unknown: no such task"),
        ({"task_id": T1, "peer": "peer-x"}, "no such member"),
    ],
)
def test_only_members_hold_and_only_of_tasks(body: dict[str, str], reason: str) -> None:
    log = raised()
    submitted(log)
    assert log.say(B, "holders", **body).reason == reason


def test_it_counts_from_version_2_on() -> None:
    log = Log()
    submitted(log)
    assert log.say(B, "holders", task_id=T1, peer=A).reason.startswith("unknown: this version")


def test_one_that_is_gone_is_named_no_more_and_the_number_is_bounded() -> None:
    more = tuple(f"peer-{n}" for n in range(HOLDERS_MAX))
    log = raised(*more)
    submitted(log, holders=(B, C))
    for peer in more[: HOLDERS_MAX - 2]:
        assert log.say(B, "holders", task_id=T1, peer=peer).accepted
    assert log.say(B, "holders", task_id=T1, peer=A).reason.startswith("limit")
    del log.view.records[Member][(C,)]
    assert log.say(B, "holders", task_id=T1, peer=A).accepted
    holding = log.view.get(Holding, T1, INPUTS)
    assert holding is not None
    assert holding.peers == (B, *more[: HOLDERS_MAX - 2], A)


def test_readers_see_listed_holders_alone(tmp_path: Path) -> None:
    log = raised()
    submitted(log, holders=(B, C))
    log.run()
    assert log.result().accepted
    assert log.say(C, "holders", task_id=T1, attempt=1, peer=A).accepted
    assert log.say(A, "presence", peer=A, present=False).accepted
    reader = read(log, tmp_path, C)
    assert [(h.peer, h.agent_id, h.present) for h in reader.held.holders(T1)] == [(B, "b", True)]
    assert [(h.peer, h.present) for h in reader.held.holders(T1, 1)] == [(A, False)]
    assert reader.held.holders(T2) == reader.held.holders(T1, 9) == []
    assert reader.held.inputs(T1) == {"source": "a" * 64, "stdin": "b" * 64}
    assert reader.held.tasks_with_input("a" * 64) == reader.held.tasks_with_input("b" * 64) == [T1]
    assert reader.held.tasks_with_input("c" * 64) == []
    assert (reader.held.has_result(T1, 1), reader.held.has_result(T1, 2)) == (True, False)
    assert reader.held.lost(T1) == []


def test_what_nobody_holds_is_named(tmp_path: Path) -> None:
    log = raised()
    submitted(log, holders=(B,))
    submitted(log, T2, holders=(B, A))
    artifact = {"path": "a", "size": 1, "sha256": "c" * 64}
    for task_id, artifacts in ((T1, []), (T2, [artifact])):
        log.run(task_id)
        assert log.result(task_id=task_id, artifacts=artifacts).accepted
    reader = read(log, tmp_path, B, C)
    assert reader.held.lost(T1) == ["source", "stdin", "output"]
    assert reader.held.lost(T2) == ["output", "artifacts"]
    assert reader.held.lost_with(C, 0) == 2
    assert reader.held.lost_with(C, log.stamp + 1) == reader.held.lost_with(B, 0) == 0


def test_what_was_removed_by_hand_or_still_runs_is_not_lost(tmp_path: Path) -> None:
    log = raised()
    log.submit(T1)
    log.submit(T2)
    log.run(T1)
    log.run(T2)
    assert log.result(task_id=T1).accepted
    assert log.say(B, "remove", task_id=T1).accepted
    reader = read(log, tmp_path, C)
    assert reader.held.lost(T1) == reader.held.lost(T2) == []
    assert reader.held.lost_with(C, 0) == 0

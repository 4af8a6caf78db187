"""Members that were removed: the rules of the entry, and how readers go on naming them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from table_mesh import T1, A, B, C, Log

from chorus.table.reader import TableReader
from chorus.table.records import Attempt, Counter, FormerMember, Member, Mesh
from chorus.table.store import TableStore

DECISION = "d" * 64


@pytest.fixture
def log() -> Log:
    log = Log()
    log.raise_version(to=2)
    return log


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[TableReader]:
    yield (reader := TableReader(tmp_path / "table.sqlite"))
    reader.close()


def stored(log: Log, folder: Path) -> None:
    """The log's table on disk."""
    store = TableStore(folder / "table.sqlite")
    store.apply_batch(log.entries)
    store.close()


def test_a_removed_member_is_one_no_longer_and_leaves_its_name(log: Log) -> None:
    joined = log.view.get(Member, B)
    assert joined is not None
    outcome = log.remove(B, "away for an hour")
    assert outcome.accepted
    assert outcome.members
    assert log.view.get(Member, B) is None
    former = log.view.get(FormerMember, B)
    assert former == FormerMember(B, "b", "", 3, joined.joined_at, log.stamp, "away for an hour")
    assert log.submit(author=B).reason == "the author is not a member"
    assert log.say(A, "removal", peer=B, raft_id=3).reason == "no such member"


def test_a_removal_counts_from_version_2_on() -> None:
    log = Log()
    assert log.remove(B).reason.startswith("unknown: this version")
    log.raise_version()
    assert log.remove(B).accepted


def test_a_removal_means_one_membership_of_a_peer(log: Log) -> None:
    log.remove(B)
    log.say(A, "join", peer=B, agent_id="b")
    assert "joined since" in log.say(A, "removal", peer=B, raft_id=3).reason
    assert log.view.get(Member, B) is not None


def test_one_that_joins_again_begins_anew(log: Log) -> None:
    log.say(B, "member", agent_id="b", role="developer", table_version=2)
    log.remove(B)
    assert log.say(A, "join", peer=B, agent_id="bee").accepted
    member = log.view.get(Member, B)
    assert member is not None
    assert (member.agent_id, member.role, member.raft_id) == ("bee", "", len(log.entries))
    assert log.view.get(FormerMember, B) is None


def members_knowing(log: Log, version: int) -> int:
    counter = log.view.get(Counter, f"members:{version}")
    return counter.value if counter is not None else 0


def test_members_are_counted_right_through_removal_and_return(log: Log) -> None:
    assert (members_knowing(log, 1), members_knowing(log, 2)) == (0, 3)
    log.remove(B)
    assert (members_knowing(log, 1), members_knowing(log, 2)) == (0, 2)
    log.say(A, "join", peer=B, agent_id="b")
    assert (members_knowing(log, 1), members_knowing(log, 2)) == (1, 2)
    log.remove(B)
    assert (members_knowing(log, 1), members_knowing(log, 2)) == (0, 2)


def test_what_a_removed_member_ran_goes_to_another(log: Log) -> None:
    log.submit(author=A)
    log.run(agent=C)
    log.remove(C)
    assert log.say(A, "reoffer", task_id=T1, attempt=1, reason="away").accepted
    assert log.say(A, "award", task_id=T1, attempt=2, agent=B).accepted
    assert log.say(A, "award", task_id=T1, attempt=2, agent=C).reason == "the task does not wait"


def test_the_founder_may_be_removed_too(log: Log) -> None:
    log.say(A, "voter", peer=B, voter=True)
    log.say(B, "leader", term=2)
    assert log.say(B, "removal", peer=A, raft_id=1).accepted
    assert log.view.get(Member, A) is None
    mesh = log.view.get(Mesh, "mesh")
    assert mesh is not None
    assert mesh.leader == B


def test_a_mesh_says_what_it_goes_on_from() -> None:
    log = Log(found=False)
    assert log.say(A, "found", mesh="m2", recovers=["m1", "m0"], agent={"agent_id": "a"}).accepted
    mesh = log.view.get(Mesh, "mesh")
    assert mesh is not None
    assert mesh.recovers == ("m1", "m0")


def test_readers_name_former_members_in_history_and_list_them_apart(
    log: Log, tmp_path: Path, reader: TableReader
) -> None:
    log.submit(author=B)
    log.run(agent=C)
    log.result()
    body = {"hash": DECISION, "kind": "task_result", "address": "ucxl://c:agent@p:t/*^/x"}
    log.say(C, "decision", task_id=T1, attempt=1, **body)
    log.say(A, "ballot", hash=DECISION, quorum=1, voters=[A, C], open_ms=60_000)
    log.say(C, "vote", hash=DECISION, round=1, choice="approve")
    log.remove(C, "gone")
    stored(log, tmp_path)

    assert [row.peer for row in reader.members()] == [A, B]
    (former,) = reader.former_members()
    assert (former.peer, former.agent_id, former.raft_id, former.reason) == (C, "c", 4, "gone")
    assert reader.agent_names() == {A: "a", B: "b", C: "c"}
    assert reader.ever_listed() == 3
    story = reader.story(T1)
    assert story is not None
    assert (story.row.agent_id, story.attempts[0].agent_id) == ("c", "c")
    decision, ballot = reader.decision(DECISION), reader.ballot(DECISION)
    assert decision is not None
    assert ballot is not None
    assert (decision.agent_id, ballot.votes[0].agent_id) == ("c", "c")
    assert [row.task_id for row in reader.tasks(agent="c").items] == [T1]
    assert [row.hash for row in reader.decisions(agent="c").items] == [DECISION]
    mesh = reader.mesh()
    assert mesh is not None
    assert (mesh.version, mesh.recovers) == (2, ())


def test_a_name_belongs_to_the_present_member_that_wears_it(
    log: Log, tmp_path: Path, reader: TableReader
) -> None:
    log.say(A, "join", peer="peer-d", agent_id="b")
    log.say(A, "presence", peer="peer-d", present=False)
    stored(log, tmp_path)
    # The one that joined later is away.
    named = reader.member_by_agent("b")
    assert named is not None
    assert named.peer == B
    log.say(A, "presence", peer="peer-d", present=True)
    stored(log, tmp_path)
    named = reader.member_by_agent("b")
    assert named is not None
    assert named.peer == "peer-d"


def test_before_there_is_a_table_nobody_was_ever_listed(reader: TableReader) -> None:
    assert (reader.ever_listed(), reader.former_members(), reader.agent_names()) == (0, [], {})


def test_an_attempt_of_a_removed_member_takes_no_result(log: Log) -> None:
    log.submit(author=A)
    log.run(agent=C)
    log.remove(C)
    assert log.result().reason == "the author is not a member"
    log.say(A, "join", peer=C, agent_id="c")
    assert log.result().accepted
    assert log.view.get(Attempt, T1, 1).state == "completed"  # type: ignore[union-attr]

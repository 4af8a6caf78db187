"""Votes, removal and hand-over as tables of cases, and what no sequence of changes may ever do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.config import MeshSettings
from chorus.election.policy import (
    AWAY_S,
    STABLE_S,
    STEADY_S,
    Change,
    Demote,
    Following,
    HandOver,
    Patience,
    Promote,
    Remove,
    Seen,
    Steadiness,
    lacks_first_votes,
    member_change,
    odd,
)
from chorus.election.score import Figures, score

# Other work shares the machine: how long an example takes says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ME = Seen("me", True, steady_s=99, me=True)


def voter(peer: str, **more: float) -> Seen:
    return Seen(peer, True, steady_s=more.get("steady", 99), away_s=more.get("away", 0))


def learner(peer: str, steady: float = 99, away: float = 0, caught_up: bool = True) -> Seen:
    return Seen(peer, False, caught_up, steady, away)


@pytest.mark.parametrize(
    ("members", "limit", "lacks"),
    [
        ([ME], 5, False),
        ([ME, learner("a")], 5, False),
        ([ME, learner("a"), learner("b", caught_up=False)], 5, True),
        ([ME, voter("a"), learner("b")], 5, True),
        ([ME, learner("a"), learner("b", away=1)], 5, False),
        ([ME, learner("a"), learner("b")], 1, False),
        ([ME, voter("a"), voter("b"), learner("c"), learner("d")], 5, False),
    ],
)
def test_the_first_votes_are_looked_for(members: list[Seen], limit: int, lacks: bool) -> None:
    assert lacks_first_votes(members, limit) == lacks


PATIENCE = Patience()
CASES = [
    ("alone", [ME], 5, None),
    ("two agents have one voter", [ME, learner("a")], 5, None),
    ("three vote, the first at once", [ME, learner("a", 1), learner("b", 0)], 5, Promote("a")),
    ("and the second", [ME, voter("a"), learner("b", 0)], 5, Promote("b")),
    ("not before both can", [ME, learner("a"), learner("b", caught_up=False)], 5, None),
    (
        "from three on it has to be steady",
        [ME, voter("a"), voter("b"), learner("c", 1), learner("d", 1)],
        5,
        None,
    ),
    ("steady", [ME, voter("a"), voter("b"), learner("c", STEADY_S), learner("d", 11)], 5, Promote("d")),
    ("the fifth follows", [ME, voter("a"), voter("b"), voter("d"), learner("c", STEADY_S)], 5, Promote("c")),
    ("no more than the setting", [ME, voter("a"), voter("b"), learner("c"), learner("d")], 3, None),
    ("four agents have three voters", [ME, voter("a"), voter("b"), learner("c")], 5, None),
    ("just away keeps its vote", [ME, voter("a"), voter("b", away=AWAY_S - 1), learner("c")], 5, None),
    ("away loses it", [ME, voter("a"), voter("b", away=AWAY_S), learner("c")], 5, Demote("b")),
    ("to a steady learner", [ME, voter("a"), learner("b", away=99), learner("c")], 5, Promote("c")),
    ("or back to odd", [ME, voter("a"), learner("b", away=99)], 5, Demote("a")),
    ("who is away longest goes first", [ME, voter("a", away=31), voter("b", away=32)], 5, Demote("b")),
    ("two wait for one that comes", [ME, voter("a"), learner("b", caught_up=False)], 5, None),
    ("four wait too", [ME, voter("a"), voter("b"), voter("d"), learner("c", 1)], 5, None),
    (
        "four without a fifth",
        [ME, voter("a"), voter("b", steady=5), voter("c", away=1, steady=0)],
        5,
        Demote("c"),
    ),
    ("too many", [ME, voter("a", steady=5), voter("b")], 1, Demote("a")),
    ("never its own", [ME, learner("a", away=99)], 5, None),
    ("away for the whole absence", [ME, learner("a"), learner("b", away=600)], 5, Remove("b")),
    ("not before", [ME, learner("a"), learner("b", away=599)], 5, None),
    ("the vote goes first", [ME, voter("a"), voter("b"), voter("c", away=600)], 5, Demote("c")),
    ("and other votes", [ME, voter("a"), learner("b"), learner("c", away=600)], 5, Promote("b")),
    ("one at a time", [ME, learner("a", away=700), learner("b", away=800)], 5, Remove("b")),
]


@pytest.mark.parametrize(("what", "members", "limit", "change"), CASES, ids=[case[0] for case in CASES])
def test_members(what: str, members: list[Seen], limit: int, change: Change | None) -> None:
    assert member_change(members, limit, PATIENCE) == change


def test_nobody_is_removed_where_the_table_does_not_know_removal() -> None:
    assert member_change([ME, learner("a", away=999)], 5, PATIENCE, removes=False) is None
    assert member_change([ME, voter("a", away=999)], 5, PATIENCE, removes=False) == Demote("a")


@pytest.mark.parametrize(
    ("timeout_s", "absence_s", "expected"),
    [
        (15, 600, Patience(30, 10, 600)),
        (15, 3600, Patience(30, 10, 3600)),
        (1, 10, Patience(5, 2.5, 10)),
        # A mesh that is slow to elect waits longer than its absence: no vote goes sooner.
        (15, 10, Patience(30, 2.5, 10)),
    ],
)
def test_patience_follows_the_settings(timeout_s: int, absence_s: int, expected: Patience) -> None:
    settings = MeshSettings(election_timeout_ms=timeout_s * 1000, absence_ms=absence_s * 1000)
    assert Patience.of(settings) == expected
    # A learner is removed no sooner than a voter would lose its vote.
    away = learner("a", away=max(expected.away_s, absence_s) - 1)
    assert member_change([ME, away], 5, expected) is None


def changed(members: list[Seen], change: Change) -> list[Seen]:
    """The members after the change, which is one that consensus makes."""
    (target,) = [member for member in members if member.peer == change.peer]
    assert not target.me
    others = [member for member in members if member is not target]
    if isinstance(change, Remove):
        assert not target.voter
        return others
    assert target.voter == isinstance(change, Demote)
    return [*others, replace(target, voter=not target.voter)]


def may_fail(members: list[Seen]) -> int:
    """How many more of the voters that answer may fail before the mesh can do nothing."""
    voters = [member for member in members if member.voter]
    return sum(member.heard for member in voters) - (len(voters) // 2 + 1)


@UNHURRIED
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.booleans(), st.sampled_from([0, 5, 40]), st.sampled_from([0, 5, 40, 700])
        ),
        max_size=12,
    ),
    st.integers(1, 9),
)
def test_changes_come_to_rest_with_an_odd_number(
    members: list[tuple[bool, bool, int, int]], limit: int
) -> None:
    listed = [ME] + [
        Seen(f"p{n}", voter, caught_up, 0 if away else steady, away)
        for n, (voter, caught_up, steady, away) in enumerate(members)
    ]
    for _ in range(50):
        change = member_change(listed, limit, PATIENCE)
        if change is None:
            break
        before, listed = listed, changed(listed, change)
        if sum(member.voter for member in before) <= limit:
            assert may_fail(listed) >= may_fail(before)
    else:
        raise AssertionError("the changes do not come to rest")
    voters = [member for member in listed if member.voter]
    waiting = [member for member in listed if not member.voter and member.heard]
    assert 1 <= len(voters) <= max(1, limit)
    # An even number only while a member is there that will make it odd.
    assert len(voters) % 2 == 1 or waiting
    assert all(member.away_s < AWAY_S for member in voters)
    assert all(member.away_s < PATIENCE.absence_s for member in listed)


class Mesh:
    """Members that go, come back and are new, under one leader after the other; changes of votes are made."""

    def __init__(self, limit: int) -> None:
        self.limit, self.now = limit, 0.0
        self.leader, self.names = "p0", 1
        # By peer: whether it votes; and who answers.
        self.voter, self.there = {"p0": True}, {"p0"}
        self.steadiness = Steadiness()

    @property
    def quorum(self) -> int:
        return sum(self.voter.values()) // 2 + 1

    def seen(self) -> list[Seen]:
        members = []
        for peer, voter in self.voter.items():
            me = peer == self.leader
            steady, away = self.steadiness.see(int(peer[1:]), me or peer in self.there, True, self.now)
            members.append(Seen(peer, voter, True, steady, away, me))
        return members

    def go(self, peer: str) -> None:
        """A member fails, for good or for a while, unless the mesh would have no majority then."""
        if peer not in self.there:
            return
        left = [other for other in self.there if other != peer and self.voter[other]]
        if len(left) < self.quorum:
            return
        self.there.discard(peer)
        if peer == self.leader:
            self.leader = left[0]
            self.steadiness.reset()

    def act(self, what: str, number: int) -> None:
        peers = list(self.voter)
        match what:
            case "go":
                self.go(peers[number % len(peers)])
            case "back":
                self.there.add(peers[number % len(peers)])
            case "new" if len(peers) < 12:
                self.voter[f"p{self.names}"] = False
                self.there.add(f"p{self.names}")
                self.names += 1
            case "hand over":
                fit = [peer for peer in peers if self.voter[peer] and peer in self.there]
                self.leader = fit[number % len(fit)]
                self.steadiness.reset()

    def tick(self) -> bool:
        """A second: at most one change, checked against the rules. Whether there was one."""
        self.now += 1.0
        before = self.seen()
        change = member_change(before, self.limit, PATIENCE)
        if change is None:
            return False
        after = changed(before, change)
        assert sum(member.voter for member in after) >= 1
        assert may_fail(after) >= may_fail(before)
        if isinstance(change, Remove):
            del self.voter[change.peer]
            assert change.peer not in self.there
        else:
            self.voter[change.peer] = isinstance(change, Promote)
        return True


@UNHURRIED
@given(
    st.integers(1, 7),
    st.lists(
        st.tuples(
            st.sampled_from(["go", "back", "new", "hand over"]), st.integers(0, 30), st.integers(0, 60)
        ),
        max_size=30,
    ),
)
def test_members_come_and_go(limit: int, acts: list[tuple[str, int, int]]) -> None:
    """However members come and go: no step lowers what may fail, and a quiet mesh is as the rules want it."""
    mesh = Mesh(limit)
    for what, number, pause in acts:
        mesh.act(what, number)
        for _ in range(pause):
            mesh.tick()
    # Long enough for the last absence and all changes.
    for _ in range(700):
        mesh.tick()
    assert not mesh.tick()
    assert set(mesh.voter) == mesh.there
    assert sum(mesh.voter.values()) == odd(min(limit, len(mesh.there)))
    assert mesh.voter[mesh.leader]


def test_odd() -> None:
    assert [odd(n) for n in range(7)] == [1, 1, 1, 3, 3, 5, 5]


def test_steadiness_counts_without_a_break() -> None:
    seen = Steadiness()
    assert seen.see(7, True, True, 0) == (0, 0)
    assert seen.see(7, True, True, 8) == (8, 0)
    assert seen.see(7, True, False, 9) == (0, 0)
    assert seen.see(7, True, True, 10) == (0, 0)
    assert seen.see(7, False, True, 11)[1] > 0
    assert seen.see(7, False, True, 41) == (0, 30)
    assert seen.see(7, True, True, 42) == (0, 0)


def test_one_that_joins_anew_was_never_away_under_its_new_raft_id() -> None:
    seen = Steadiness()
    seen.see(7, False, False, 0)
    assert seen.see(7, False, False, 600)[1] == 600
    seen.forget_all_but([9])
    # Not heard yet: it has just been taken in.
    assert seen.see(9, False, False, 600)[1] < 1
    # And of the one before nothing is kept.
    assert seen.see(7, False, False, 601)[1] < 1


def test_hand_over_only_to_one_that_is_better_for_the_whole_window() -> None:
    hand_over = HandOver()
    assert hand_over.to(0.5, {"a": 0.8, "b": 0.6}, 0) is None
    assert hand_over.to(0.5, {"a": 0.8, "b": 0.6}, STABLE_S - 1) is None
    assert hand_over.to(0.5, {"a": 0.8}, STABLE_S) == "a"
    assert hand_over.to(0.5, {"a": 0.6}, STABLE_S + 1) is None
    assert hand_over.to(0.5, {"a": 0.8}, STABLE_S + 2) is None
    assert hand_over.to(0.5, {}, 2 * STABLE_S) is None
    assert hand_over.to(0.5, {"a": 0.8}, 2 * STABLE_S + 2) is None


def test_a_table_that_does_not_follow_is_noticed() -> None:
    following = Following()
    assert not following.stuck(5, 5, 0, 15)
    assert not following.stuck(5, 9, 10, 15)
    assert not following.stuck(5, 9, 14, 15)
    assert following.stuck(5, 9, 15, 15)
    assert not following.stuck(6, 9, 16, 15)
    assert not following.stuck(6, 9, 30, 15)
    assert following.stuck(6, 9, 31, 15)


def test_the_score_stays_in_bounds_and_grows_with_its_parts() -> None:
    worst, best = (
        score(Figures(members=3, load_per_core=9, free_memory=0)),
        score(Figures(1e9, 20, 20, 0, 0, 1, 3, 2, 0, 10**9)),
    )
    assert 0 <= worst.total < 0.2
    assert 0.99 < best.total <= 1
    assert score(Figures(members=3, connected=2)).total > score(Figures(members=3, connected=1)).total

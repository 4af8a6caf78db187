"""Votes and hand-over as tables of cases, and what no sequence of changes may ever do."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.election.policy import (
    AWAY_S,
    STABLE_S,
    STEADY_S,
    Demote,
    Following,
    HandOver,
    Promote,
    Seen,
    Steadiness,
    lacks_first_votes,
    odd,
    vote_change,
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
    ("too many", [ME, voter("a", steady=5), voter("b")], 1, Demote("a")),
    ("never its own", [ME, learner("a", away=99)], 5, None),
]


@pytest.mark.parametrize(("what", "members", "limit", "change"), CASES, ids=[case[0] for case in CASES])
def test_votes(what: str, members: list[Seen], limit: int, change: Promote | Demote | None) -> None:
    assert vote_change(members, limit) == change


@UNHURRIED
@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from([0, 5, 40]), st.sampled_from([0, 5, 40])),
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
        change = vote_change(listed, limit)
        if change is None:
            break
        assert change.peer != "me"
        listed = [
            Seen(m.peer, isinstance(change, Promote), m.caught_up, m.steady_s, m.away_s, m.me)
            if m.peer == change.peer
            else m
            for m in listed
        ]
    else:
        raise AssertionError("the changes do not come to rest")
    voters = [member for member in listed if member.voter]
    assert 1 <= len(voters) <= max(1, limit)
    assert len(voters) % 2 == 1
    assert all(member.away_s < AWAY_S for member in voters)


def test_odd() -> None:
    assert [odd(n) for n in range(7)] == [1, 1, 1, 3, 3, 5, 5]


def test_steadiness_counts_without_a_break() -> None:
    seen = Steadiness()
    assert seen.see("a", True, True, 0) == (0, 0)
    assert seen.see("a", True, True, 8) == (8, 0)
    assert seen.see("a", True, False, 9) == (0, 0)
    assert seen.see("a", True, True, 10) == (0, 0)
    assert seen.see("a", False, True, 11)[1] > 0
    assert seen.see("a", False, True, 41) == (0, 30)
    assert seen.see("a", True, True, 42) == (0, 0)


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

"""When an agent leaves its mesh, as a table of cases; and that meshes which began apart end as one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.config import MeshSettings
from chorus.election.departing import REJOIN_S, Other, Own, Patience, Span, by_hand, departure, warnings
from chorus.election.founding import Join, Met, next_step

PATIENCE = Patience(leaderless_s=30.0, alone_s=30.0)
LED = Own("m5")
LONE = Own("m5", lone=True)
LEADERLESS = Own("m5", leaderless_s=30.0)
GONE = Own("m5", leaderless_s=90.0, alone_s=30.0)

# What, own mesh, others, CHORUS_REJOIN, and (kind, for which mesh) or None.
CASES = [
    ("nothing is met", LED, [], True, None),
    ("two meshes with leaders stay", LED, [Other("m1")], True, None),
    ("removed", Own("m5", removed="so"), [], False, ("removed", None)),
    ("removed, whatever is met", Own("m5", removed="so", lone=True), [Other("m1")], True, ("removed", None)),
    ("lone joins a larger one", LONE, [Other("m9")], False, ("merge", "m9")),
    ("not one without a leader", LONE, [Other("m1", leader=False)], False, None),
    ("not one that takes nobody", LONE, [Other("m1", accepting=False)], False, None),
    ("of two lone the younger goes", LONE, [Other("m1", lone=True)], False, ("merge", "m1")),
    ("a lone one needs no leader", LONE, [Other("m1", lone=True, leader=False)], False, ("merge", "m1")),
    ("and the elder stays", LONE, [Other("m9", lone=True)], True, None),
    ("a larger one first", LONE, [Other("m1", lone=True), Other("m9")], False, ("merge", "m9")),
    ("then the eldest", LONE, [Other("m4"), Other("m3")], False, ("merge", "m3")),
    (
        "not while it brings in what it took along",
        Own("m5", lone=True, carrying=True),
        [Other("m1")],
        True,
        None,
    ),
    ("a larger one does not join a lone one", LED, [Other("m1", lone=True)], True, None),
    (
        "recovered elsewhere",
        LEADERLESS,
        [Other("m9", recovers=frozenset({"m5"}))],
        False,
        ("recovered", "m9"),
    ),
    (
        "also when nobody is taken in yet",
        LEADERLESS,
        [Other("m9", accepting=False, recovers=frozenset({"m7", "m5"}))],
        False,
        ("recovered", "m9"),
    ),
    ("not while it has a leader", LED, [Other("m9", recovers=frozenset({"m5"}))], True, None),
    (
        "not at the first missed heartbeat",
        Own("m5", leaderless_s=29.0),
        [Other("m9", recovers=frozenset({"m5"}))],
        True,
        None,
    ),
    ("gone: joins the one it meets", GONE, [Other("m9", met_s=30.0)], True, ("rejoin", "m9")),
    ("not by itself unless that is wanted", GONE, [Other("m9", met_s=30.0)], False, None),
    ("not while one of its own is there", LEADERLESS, [Other("m9", met_s=99.0)], True, None),
    ("not one that it has just met", GONE, [Other("m9", met_s=29.0)], True, None),
    ("not one without a leader either", GONE, [Other("m9", leader=False, met_s=30.0)], True, None),
]


@pytest.mark.parametrize(
    ("what", "own", "others", "rejoin", "expected"), CASES, ids=[case[0] for case in CASES]
)
def test_departures(
    what: str, own: Own, others: list[Other], rejoin: bool, expected: tuple[str, str | None] | None
) -> None:
    found = departure(own, others, PATIENCE, rejoin=rejoin)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.kind, found.to, found.mesh) == (*expected, "m5")
        assert found.why


BY_HAND = [
    ("to the other one", LED, [Other("m1")], ("rejoin", "m1")),
    ("at once", Own("m5", leaderless_s=1.0), [Other("m1", lone=True)], ("rejoin", "m1")),
    ("a recovered one", LED, [Other("m1", recovers=frozenset({"m5"})), Other("m0")], ("recovered", "m1")),
    ("there is none", LED, [], "no connected peer"),
    ("it goes by itself", LONE, [Other("m1")], "by itself"),
    ("the other comes by itself", LED, [Other("m1", lone=True)], "by itself"),
    ("it takes nobody in", LED, [Other("m1", leader=False)], "try again"),
]


@pytest.mark.parametrize(("what", "own", "others", "expected"), BY_HAND, ids=[case[0] for case in BY_HAND])
def test_departures_by_hand(
    what: str, own: Own, others: list[Other], expected: tuple[str, str] | str
) -> None:
    found = by_hand(own, others)
    if isinstance(found, str):
        assert isinstance(expected, str)
        assert expected in found
    else:
        assert (found.kind, found.to) == expected


WARNINGS = [
    ("two of more than one member", LED, Other("m1"), False, "chorusctl members rejoin"),
    ("lone", LONE, Other("m1"), False, "by itself"),
    ("the other is lone", LED, Other("m1", lone=True), False, "by itself"),
    ("leaderless, with others of its own", LEADERLESS, Other("m1"), True, "no leader now"),
    ("gone, by hand", GONE, Other("m1"), False, "chorusctl members rejoin"),
    ("gone, by itself", GONE, Other("m1"), True, "by itself within 30 s"),
    ("recovered", LEADERLESS, Other("m1", recovers=frozenset({"m5"})), False, "by itself"),
    ("recovered, not lost", LED, Other("m1", recovers=frozenset({"m5"})), False, "is to end"),
]


@pytest.mark.parametrize(
    ("what", "own", "other", "rejoin", "words"), WARNINGS, ids=[case[0] for case in WARNINGS]
)
def test_people_are_told_what_to_do(what: str, own: Own, other: Other, rejoin: bool, words: str) -> None:
    (said,) = warnings(own, [other], PATIENCE, rejoin=rejoin)
    for part in ("m5", "m1", words):
        assert part in said


def test_patience_follows_the_election_timeout() -> None:
    assert Patience.of(MeshSettings(election_timeout_ms=15_000)) == Patience(30.0, REJOIN_S)
    assert Patience.of(MeshSettings(election_timeout_ms=500)) == Patience(1.0, REJOIN_S)


def test_a_span_counts_without_a_break() -> None:
    span = Span()
    assert span.see(False, 1.0) == 0
    assert 0 < span.see(True, 2.0) < 0.001
    assert span.see(True, 5.0) == 3.0
    assert span.see(False, 6.0) == 0
    assert span.see(True, 7.0) < 0.001


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(2, 6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_lone_meshes_that_meet_end_as_one(count: int, early: list[tuple[int, int]], rng: object) -> None:
    """Agents found a mesh each, meet pair by pair and then all; who leaves joins a mesh that it prefers."""
    # By agent: its mesh, None while it has left one and looks for the next.
    mesh: dict[int, str | None] = {agent: f"m{agent}" for agent in range(count)}
    size = {f"m{agent}": 1 for agent in range(count)}
    peak = dict(size)

    def other(name: str) -> Other:
        return Other(name, lone=peak[name] == 1)

    def look(agent: int, met: set[int]) -> None:
        own = mesh[agent]
        around = {name for peer in met if (name := mesh[peer]) is not None and name != own}
        if own is None:
            peers = [Met(f"p{n}", 0, 99, mesh[n], peak.get(mesh[n] or "") == 1) for n in met]
            step = next_step(f"p{agent}", 99, 0, 3, peers)
            if isinstance(step, Join):
                joined = step.mesh
                mesh[agent] = joined
                size[joined] += 1
                peak[joined] = max(peak[joined], size[joined])
            return
        left = departure(
            Own(own, lone=peak[own] == 1), [other(name) for name in around], PATIENCE, rejoin=False
        )
        if left is not None:
            mesh[agent] = None
            size[own] -= 1

    # One pair after the other meets, and whoever left looks for a mesh only when all are connected.
    for one, two in early:
        if one < count and two < count and one != two and mesh[one] and mesh[two]:
            look(one, {two})
    everybody = set(range(count))
    for _ in range(3 * count):
        for agent in rng.sample(sorted(everybody), count):  # type: ignore[attr-defined]
            look(agent, everybody - {agent})
    assert len(set(mesh.values())) == 1
    assert None not in mesh.values()

"""Join, found or wait, as a table of cases; and many agents that start at once end in one mesh."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.election.founding import SILENT_WAIT_S, Found, Join, Met, Wait, next_step

# Other work shares the machine: how long an example takes says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOW, WAIT_S = 100.0, 3.0
LONG_AGO = NOW - 50


def met(
    peer: str,
    *,
    ago: float | None = 0.1,
    mesh: str | None = None,
    since: float = LONG_AGO,
    lone: bool = False,
    accepting: bool = True,
) -> Met:
    return Met(peer, since, None if ago is None else NOW - ago, mesh, lone, accepting)


CASES = [
    ("alone, at once", 0.0, [], Wait),
    ("alone, after the wait", 3.0, [], Found),
    ("a mesh is joined at once", 0.0, [met("a", mesh="m")], Join),
    ("a mesh before a smaller id", 9.0, [met("a"), met("z", mesh="m")], Join),
    ("a mesh that takes nobody in is waited for", 9.0, [met("a", mesh="m", accepting=False)], Wait),
    ("a smaller id founds", 3.0, [met("a")], Wait),
    ("a larger id does not", 3.0, [met("z")], Found),
    ("an old answer of a larger id may be wrong by now", 3.0, [met("z", ago=2.0)], Wait),
    ("a peer that is starting is waited for", 3.0, [met("z", ago=None, since=NOW - 1)], Wait),
    ("but not for ever", 30.0, [met("z", ago=None)], Found),
    ("one that fell silent neither", 30.0, [met("a", ago=SILENT_WAIT_S + 1)], Found),
]


@pytest.mark.parametrize(("what", "age", "peers", "kind"), CASES, ids=[case[0] for case in CASES])
def test_cases(what: str, age: float, peers: list[Met], kind: type) -> None:
    step = next_step("m", NOW, NOW - age, WAIT_S, peers)
    assert isinstance(step, kind), step
    if isinstance(step, Wait):
        assert step.why


def test_the_mesh_that_stays_is_joined() -> None:
    """A lone mesh joins a larger or an older one."""
    lone, older, larger = (
        met("a", mesh="m2", lone=True),
        met("b", mesh="m1", lone=True),
        met("c", mesh="m3"),
    )
    closed = met("d", mesh="m0", accepting=False)
    assert next_step("m", NOW, NOW, WAIT_S, [lone, older, larger, closed]) == Join("c", "m3")
    assert next_step("m", NOW, NOW, WAIT_S, [lone, older, closed]) == Join("b", "m1")


def test_the_mesh_that_was_left_for_another_is_not_joined_again() -> None:
    left, other = met("a", mesh="m1"), met("b", mesh="m2")
    assert next_step("m", NOW, NOW, WAIT_S, [left, other]) == Join("a", "m1")
    assert next_step("m", NOW, NOW, WAIT_S, [left, other], "m1") == Join("b", "m2")
    # Nor does this agent found a third one while that is all it meets.
    assert isinstance(next_step("m", NOW, NOW - 1000, WAIT_S, [left], "m1"), Wait)


@UNHURRIED
@given(
    starts=st.lists(st.integers(0, 12), min_size=2, max_size=5),
    ready=st.lists(st.integers(0, 8), min_size=5, max_size=5),
    order=st.permutations(range(5)),
)
def test_agents_that_meet_in_time_make_one_mesh(
    starts: list[int], ready: list[int], order: list[int]
) -> None:
    """Ticks of 0.2 s; connected from the start, each answers only once its process is up, a tick late."""
    tick, count = 0.2, len(starts)
    up = [starts[n] + ready[n] for n in range(count)]
    mesh: list[str | None] = [None] * count
    answers: list[dict[int, tuple[float, str | None]]] = [{} for _ in range(count)]
    founded = 0
    for step in range(200):
        now = step * tick
        for n in [item for item in order if item < count]:
            if step < up[n] or mesh[n] is not None:
                continue
            met_now = [
                Met(f"p{other}", max(starts[n], starts[other]) * tick, *answers[n].get(other, (None, None)))
                for other in range(count)
                if other != n and step >= starts[other]
            ]
            decided = next_step(f"p{n}", now, up[n] * tick, 3.0, met_now)
            if isinstance(decided, Found):
                founded += 1
                mesh[n] = f"mesh{n}"
            elif isinstance(decided, Join):
                mesh[n] = decided.mesh
        for n in range(count):
            for other in range(count):
                if other != n and step >= up[n] and step >= up[other]:
                    answers[n][other] = (now, mesh[other])
    assert founded == 1
    assert len(set(mesh)) == 1
    assert None not in mesh

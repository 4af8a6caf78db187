"""Fit as a table of cases, the order of members and of tasks, and the reasons of those that wait."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.coordinator.board import need_of
from chorus.coordinator.matching import AGING_MS_PER_LEVEL, Candidate, Model, Need, Waiting, misfit, plan

# Other work shares the machine: how long an example takes says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GENERALIST = Candidate("p", "agent", max_tasks=2)
EXPERT = Candidate(
    "q",
    "expert",
    "developer",
    frozenset({"python", "sql"}),
    "backend",
    2,
    languages=frozenset({"python", "rust"}),
)

THINKER = replace(GENERALIST, models=(Model("small", local=True), Model("big")))


def named(language: str) -> Need:
    """As a task's language is read."""
    return need_of({"commands": ["true"], "language": language})


FITS = [
    ("nothing asked", Need(), GENERALIST, None),
    ("role", Need(required_role="developer"), EXPERT, None),
    ("no role", Need(required_role="developer"), GENERALIST, "role"),
    ("expertise", Need(required_expertise=("sql", "python")), EXPERT, None),
    ("missing expertise", Need(required_expertise=("sql", "go")), EXPERT, "go"),
    ("specialization", Need(specialization="backend"), EXPERT, None),
    ("another one", Need(specialization="frontend"), EXPERT, "specialization"),
    ("general takes all", Need(specialization="frontend"), GENERALIST, None),
    ("its language", Need(language="python"), EXPERT, None),
    ("not its language", Need(language="rust"), EXPERT, "expertise"),
    ("general speaks all", Need(language="rust"), replace(EXPERT, specialization="general"), None),
    ("no language listed", Need(language="rust"), replace(EXPERT, expertise=frozenset({"sql"})), None),
    ("no image", Need(language="java"), replace(EXPERT, specialization="general"), "image"),
    ("by another name", named("Py"), EXPERT, None),
    ("an image by another name", named("golang"), replace(GENERALIST, languages=frozenset({"go"})), None),
    ("expertise by another name", named("ts"), replace(EXPERT, expertise=frozenset({"JavaScript"})), "image"),
    ("everybody speaks the shell", named("bash"), replace(EXPERT, languages=frozenset({"base"})), None),
    ("a language nobody knows", named("cobol"), replace(EXPERT, specialization="general"), "image for cobol"),
    ("a goal needs a model", Need(goal=True), GENERALIST, "it has no model"),
    ("its model is away", Need(goal=True), replace(GENERALIST, model_reason="x is away"), "(x is away)"),
    ("any model", Need(goal=True), THINKER, None),
    ("a named model", Need(goal=True, required_model="big"), THINKER, None),
    ("another model", Need(goal=True, required_model="huge"), THINKER, "does not have the model huge"),
    ("a near model", Need(goal=True, local_model=True), THINKER, None),
    (
        "a named model that is far",
        Need(goal=True, required_model="big", local_model=True),
        THINKER,
        "its model is not on a private address",
    ),
    ("commands need none", Need(), GENERALIST, None),
]


@pytest.mark.parametrize(("what", "need", "member", "why"), FITS, ids=[case[0] for case in FITS])
def test_fit(what: str, need: Need, member: Candidate, why: str | None) -> None:
    found = misfit(need, member)
    assert (found is None) if why is None else (found is not None and why in found)


def task(name: str, priority: int = 5, created: int = 0, need: Need | None = None, **more: object) -> Waiting:
    return Waiting(name, need or Need(), priority, created, **more)  # type: ignore[arg-type]


def member(name: str, **more: object) -> Candidate:
    return Candidate(name, name, **{"max_tasks": 2, **more})  # type: ignore[arg-type]


def test_load_is_spread() -> None:
    made = plan([task(str(n)) for n in range(5)], [member("a"), member("b"), member("c", active=1)])
    assert [peer for _, peer in made.awards] == ["a", "b", "a", "b", "c"]
    assert not made.reasons


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"active": 1}),
        ({}, {"success": 0.2}),
        ({"latency_ms": 1.0}, {"latency_ms": 300.0}),
    ],
)
def test_the_best_is_asked_first(better: dict[str, object], worse: dict[str, object]) -> None:
    assert plan([task("t")], [member("a", **worse), member("b", **better)]).awards == (("t", "b"),)


def test_urgent_ones_go_first_and_none_starves() -> None:
    order = sorted(
        [
            task("old, not urgent", 1, created=0),
            task("urgent", 10, created=8 * AGING_MS_PER_LEVEL),
            task("very old, not urgent", 1, created=-10 * AGING_MS_PER_LEVEL),
            task("later", 5, created=4 * AGING_MS_PER_LEVEL + 1),
        ],
        key=lambda waiting: waiting.rank,
    )
    assert [waiting.task_id for waiting in order] == [
        "very old, not urgent",
        "urgent",
        "old, not urgent",
        "later",
    ]


def test_who_declined_is_not_asked_again_yet() -> None:
    members = [member("a"), member("b")]
    made = plan([task("t")], members, lambda task_id, peer: "full" if peer == "a" else None)
    assert made.awards == (("t", "b"),)
    made = plan([task("t")], members, lambda task_id, peer: "full")
    assert made.reasons == {"t": "declined by all that fit; a: full; b: full"}


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "no member is known"),
        ([member("a", active=2)], "all members that fit are busy"),
        ([member("a", present=False)], "a: it is away"),
        ([member("a", accepting=False, reason="no Docker")], "a: it takes no tasks (no Docker)"),
        ([member("a", role="tester")], "a: its role is not pilot"),
    ],
)
def test_why_a_task_waits(members: list[Candidate], why: str) -> None:
    need = Need(required_role="" if "role" not in why else "pilot")
    assert why in plan([task("t", need=need)], members).reasons["t"]


def test_dependencies_come_first() -> None:
    made = plan([task("t", blocked=(("x", "completed"), ("y", "failed")))], [member("a")])
    assert made.reasons == {"t": "waits for task y, which is failed"}
    assert plan([task("t", blocked=(("x", "completed"),))], [member("a")]).awards == (("t", "a"),)


@UNHURRIED
@given(
    st.lists(st.tuples(st.integers(0, 10), st.sampled_from(["", "r"])), max_size=20),
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["", "r"]), st.booleans()), max_size=5
    ),
)
def test_capacity_is_never_exceeded_and_every_task_is_told(
    tasks: list[tuple[int, str]], members: list[tuple[int, int, str, bool]]
) -> None:
    waiting = [
        task(str(n), priority, need=Need(required_role=role)) for n, (priority, role) in enumerate(tasks)
    ]
    there = [
        member(str(n), max_tasks=most, active=active, role=role, accepting=ready)
        for n, (most, active, role, ready) in enumerate(members)
    ]
    made = plan(waiting, there)
    for candidate in there:
        assert sum(peer == candidate.peer for _, peer in made.awards) <= candidate.free
    assert {task_id for task_id, _ in made.awards} | set(made.reasons) == {item.task_id for item in waiting}
    assert not {task_id for task_id, _ in made.awards} & set(made.reasons)
    assert plan(waiting, there, explain=False).awards == made.awards

"""A discussion ends by name; an objection changes the plan or is answered, or a person is asked."""

from __future__ import annotations

import random

import pytest
from discussion import ESCALATION_MS, PERIOD_MS, Machine, said, terms, word
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.hmmm.session import (
    HELD_MAX,
    LASTS_MAX_MS,
    WORDS_MAX,
    WORDS_MAX_IN_ALL,
    Conclude,
    Escalate,
    Session,
    Think,
    Wait,
)
from chorus.hmmm.words import Word, concluding, fitted
from chorus.wire.messages import WORDS_MAX_BYTES, Intent

OUTCOMES = {"alone", "unanimous", "agreed", "period", "answered", "timeout"}


def outcome(session: Session, now: int = 0) -> str:
    step = session.step(now)
    assert isinstance(step, Conclude), step
    return step.outcome


def test_nobody_to_answer_concludes_at_once() -> None:
    assert outcome(said(Session(terms()), word("o", "proposal"))) == "alone"


def test_unanimity_cuts_the_period_short() -> None:
    plan = word("o", "proposal")
    session = said(Session(terms("a", "b")), plan, word("a", "agreement", plan))
    assert session.step(1) == Wait(PERIOD_MS)
    assert outcome(said(session, word("b", "agreement", plan)), 1) == "unanimous"


def test_the_period_passes() -> None:
    plan = word("o", "proposal")
    session = said(Session(terms("a", "b", "c")), plan)
    assert outcome(session, PERIOD_MS) == "period"
    said(session, word("a", "agreement", plan), word("b", "agreement", plan))
    assert outcome(session, PERIOD_MS) == "agreed"


def test_an_objection_changes_the_plan_and_the_new_one_needs_its_own_agreement() -> None:
    plan = word("o", "proposal")
    objection = word("b", "objection", plan)
    session = said(Session(terms("a", "b")), plan, word("a", "agreement", plan), objection)
    # Not even the end of the period passes an open objection.
    assert session.step(PERIOD_MS) == Think((objection,))
    better = word("o", "proposal", objection, cites=(objection,), at=PERIOD_MS)
    assert said(session, better).plan == better
    assert session.step(PERIOD_MS) == Wait(2 * PERIOD_MS)
    # A late agreement to the first plan is none to the second.
    said(session, word("b", "agreement", better))
    assert session.step(PERIOD_MS) == Wait(2 * PERIOD_MS)
    assert session.asked("a") == better
    assert outcome(said(session, word("a", "agreement", better)), PERIOD_MS) == "unanimous"


def test_an_objection_is_answered_with_a_reason() -> None:
    plan = word("o", "proposal")
    objection = word("a", "objection", plan)
    session = said(Session(terms("a")), plan, objection)
    assert session.asked("a") is None
    answer = word("o", "answer", objection)
    said(session, answer)
    assert session.asked("a") == answer
    assert outcome(said(session, word("a", "agreement", answer)), 0) == "unanimous"


def after_an_objection(reply: Intent) -> tuple[Session, Word, Word, Word]:
    """A discussion in which the owner answered an objection: with its plan, the objection, the answer."""
    plan = word("o", "proposal")
    objection = word("a", "objection", plan)
    replied = word("o", reply, objection, cites=(objection,))
    return said(Session(terms("a", "b")), plan, objection, replied), plan, objection, replied


def test_another_point_of_the_same_member_is_its_first_objection_to_that_point() -> None:
    session, _, _, better = after_an_objection("proposal")
    other = word("a", "objection", better)
    assert said(session, other).step(0) == Think((other,))


def test_an_objection_to_the_plan_is_a_new_point_also_after_an_answer() -> None:
    session, plan, _, _ = after_an_objection("answer")
    other = word("b", "objection", plan)
    assert said(session, other).step(0) == Think((other,))


@pytest.mark.parametrize("member", ["a", "b"])
@pytest.mark.parametrize("reply", ["answer", "proposal"])
def test_whoever_cites_an_answered_objection_objects_to_the_same_point(reply: Intent, member: str) -> None:
    session, _, objection, replied = after_an_objection(reply)
    again = word(member, "objection", replied, cites=(objection,))
    assert said(session, again).step(0) == Escalate(again, "a second objection to the same point")


def test_a_reply_to_an_answered_objection_or_below_its_answer_is_to_the_same_point() -> None:
    session, _, objection, _ = after_an_objection("proposal")
    again = word("b", "objection", objection)
    assert said(session, again).step(0) == Escalate(again, "a second objection to the same point")
    session, _, _, answer = after_an_objection("answer")
    question = word("a", "question", answer)
    below = word("b", "objection", question)
    assert said(session, question, below).step(0) == Escalate(below, "a second objection to the same point")


def test_an_objection_that_nobody_answered_yet_is_not_repeated_but_joined() -> None:
    plan = word("o", "proposal")
    first = word("a", "objection", plan)
    joined = word("b", "objection", first)
    session = said(Session(terms("a", "b")), plan, first, joined)
    assert session.step(0) == Think((first, joined))


def test_a_second_objection_to_the_same_point_goes_to_a_person() -> None:
    session, _, _, answer = after_an_objection("answer")
    again = word("a", "objection", answer)
    step = said(session, again).step(0)
    assert step == Escalate(again, "a second objection to the same point")
    escalation = word("o", "escalation", again)
    said(session, escalation)
    assert session.step(0) == Wait(ESCALATION_MS)
    assert session.asked("b") is None
    # Agents are not asked any more.
    assert session.take(word("b", "agreement", escalation)) == []
    assert outcome(session, ESCALATION_MS) == "timeout"


def test_an_objection_of_another_to_a_new_plan_is_its_first() -> None:
    plan = word("o", "proposal")
    objection = word("a", "objection", plan)
    better = word("o", "proposal", objection)
    other = word("b", "objection", better)
    session = said(Session(terms("a", "b")), plan, objection, better, other)
    assert session.step(0) == Think((other,))


def escalated() -> tuple[Session, object]:
    plan = word("o", "proposal")
    objection = word("a", "objection", plan)
    session = said(Session(terms("a")), plan, objection)
    session.give_up((objection,))
    assert isinstance(session.step(0), Escalate)
    escalation = word("o", "escalation", objection)
    return said(session, escalation), escalation


def test_a_person_agrees_to_the_plan() -> None:
    session, escalation = escalated()
    said(session, word("b", "agreement", escalation, person="ann"))  # type: ignore[arg-type]
    assert outcome(session, 1) == "answered"


def test_a_person_has_the_plan_changed() -> None:
    session, escalation = escalated()
    wish = word("b", "answer", escalation, person="ann")  # type: ignore[arg-type]
    said(session, wish)
    # One person's word is enough.
    assert session.take(word("a", "agreement", escalation, person="bob")) == []  # type: ignore[arg-type]
    assert session.step(ESCALATION_MS) == Think((wish,))
    changed = word("o", "proposal", wish)
    said(session, changed)
    assert session.plan == changed
    assert outcome(session, 1) == "answered"


def test_a_question_is_answered_and_holds_nothing_up() -> None:
    plan = word("o", "proposal")
    question = word("a", "question", plan)
    session = said(Session(terms("a")), plan, question)
    assert session.step(0) == Think((question,))
    session.give_up((question,))
    assert session.step(0) == Wait(PERIOD_MS)
    assert outcome(session, PERIOD_MS) == "period"


def test_too_much_said_or_too_long_goes_to_a_person() -> None:
    made = terms("a")
    plan = word("o", "proposal")
    session = said(Session(made), plan)
    for number in range(WORDS_MAX - 2):
        said(session, word(f"m{number}", "update", plan))
    said(session, word("a", "objection", plan))
    assert session.take(word("late", "update", plan)) == []
    assert isinstance(session.step(0), Escalate)
    session = said(Session(made), plan, word("a", "objection", plan))
    assert isinstance(session.step(LASTS_MAX_MS), Escalate)


def test_each_member_replies_once_and_duplicates_count_for_nothing() -> None:
    plan = word("o", "proposal")
    session = said(Session(terms("a")), plan, word("a", "objection", plan))
    assert session.take(plan) == []
    assert session.take(word("a", "agreement", plan)) == []
    assert len(session.words) == 2


@pytest.mark.parametrize("intent", ["proposal", "escalation"])
def test_only_the_owner_plans_and_escalates(intent: Intent) -> None:
    plan = word("o", "proposal")
    session = said(Session(terms("a")), plan)
    assert session.take(word("a", intent, plan)) == []
    assert session.take(word("o", intent, plan, person="ann")) == []
    # Nor does anybody else conclude.
    for one in (word("a", "update", plan, message=concluding("unanimous", "")),):
        session.take(one)
        assert not session.over


def test_only_the_owner_begins() -> None:
    assert Session(terms("a")).take(word("a", "proposal")) == []
    assert Session(terms("a")).take(word("o", "update")) == []


def test_what_answers_an_unknown_message_waits_for_it() -> None:
    plan = word("o", "proposal")
    objection = word("a", "objection", plan)
    better = word("o", "proposal", objection)
    session = Session(terms("a"))
    assert session.take(better) == []
    assert session.take(objection) == []
    assert session.take(plan) == [plan, objection, better]
    assert session.plan == better
    lost = Session(terms("a"))
    for number in range(HELD_MAX + 5):
        lost.take(word(f"m{number}", "update", plan))
    assert len(lost._held) == HELD_MAX


def test_a_long_message_is_cut_visibly_to_what_a_message_holds() -> None:
    assert fitted("short") == "short"
    for text in ("x" * 5000, "ä€" * 3000, "\ud800" * 5000):
        cut = fitted(text)
        assert len(cut.encode()) <= WORDS_MAX_BYTES
        assert cut.endswith("…")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    members=st.integers(0, 5),
    loss=st.sampled_from([0.0, 0.3, 0.9]),
    person=st.booleans(),
)
def test_machines_over_a_bad_network_end_by_name_within_bounds(
    seed: int, members: int, loss: float, person: bool
) -> None:
    """Messages are lost, come twice and in any order; the owner always ends, and nobody learns another."""
    rng = random.Random(seed)
    peers = [f"p{number}" for number in range(members)]
    made = terms(*peers)
    machines = {peer: Machine(peer, made, rng) for peer in ["o", *peers]}
    owner = machines["o"]
    wire: list[tuple[str, object]] = []

    def publish(words: list[object]) -> None:
        for one in words:
            for peer in machines:
                wire.extend((peer, one) for _ in range(rng.choice([1, 1, 2])) if rng.random() >= loss)

    now = 0
    while not owner.session.over:
        assert now <= LASTS_MAX_MS + ESCALATION_MS + 10 * PERIOD_MS, "it does not end"
        rng.shuffle(wire)
        taken, wire[:] = wire[: len(wire) // 2 + 1], wire[len(wire) // 2 + 1 :]
        for peer, one in taken:
            if one.peer != peer:  # type: ignore[attr-defined]
                machines[peer].take(one, now)  # type: ignore[arg-type]
        for machine in machines.values():
            publish([*machine.act(now), *(machine.again() if rng.random() < 0.3 else [])])
        escalation = owner.session.escalation
        if person and escalation is not None and peers and owner.session.person is None:
            publish(machines[peers[0]].say(now, "answer", escalation, person="ann"))
        now += rng.choice([0, 1_000, 10_000])
    for peer, one in wire:
        if one.peer != peer:  # type: ignore[attr-defined]
            machines[peer].take(one, now)  # type: ignore[arg-type]
    assert owner.session.outcome in OUTCOMES
    for machine in machines.values():
        session = machine.session
        assert len(session.words) <= WORDS_MAX_IN_ALL + 1
        replies = [(one.parent_id, one.peer) for one in session.words if one.conclusion is None]
        assert len(set(replies)) == len(replies)
        if session.over:
            assert (session.outcome, session.reason) == (owner.session.outcome, owner.session.reason)
    if owner.session.outcome == "unanimous":
        agreed = {one.peer for one in owner.session.words if one.intent == "agreement"}
        assert agreed == set(peers)

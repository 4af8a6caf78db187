"""The licence as a machine: every state with every answer, and what no clock can do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.license.moments import Moments
from chorus.license.refusals import Reason
from chorus.license.states import (
    BREAKER_FAILURES,
    BREAKER_OPEN_S,
    ENDED,
    Breaker,
    LicenceState,
    remembered,
    renewal_s,
    retry_s,
)

GRACE_S = 100.0
CHECKED = 1_000.0
DURING, AFTER = CHECKED + 99.9, CHECKED + 100.0

UNLICENSED = LicenceState()
VALID = LicenceState("valid", CHECKED)
GRACE = LicenceState("grace", CHECKED, Reason.SLOW, "slow")
EXPIRED = LicenceState("expired", CHECKED, Reason.SLOW, "slow")
SUSPENDED = LicenceState("suspended", CHECKED, Reason.SUSPENDED, "suspended")


ALL_ANSWERS = ("granted", "unanswered", "suspended", "refused", "passed")


@pytest.mark.parametrize(
    ("before", "answer", "now", "after"),
    [
        (UNLICENSED, "granted", DURING, "valid"),
        (UNLICENSED, "unanswered", DURING, "unlicensed"),
        (UNLICENSED, "unanswered", AFTER, "unlicensed"),
        (UNLICENSED, "suspended", DURING, "suspended"),
        (UNLICENSED, "refused", DURING, "unlicensed"),
        (UNLICENSED, "passed", AFTER, "unlicensed"),
        (VALID, "granted", DURING, "valid"),
        (VALID, "unanswered", DURING, "grace"),
        (VALID, "unanswered", AFTER, "expired"),
        (VALID, "suspended", DURING, "suspended"),
        (VALID, "refused", DURING, "expired"),
        # Nothing has failed: an agent that was asleep asks before it is judged.
        (VALID, "passed", AFTER, "valid"),
        (GRACE, "granted", DURING, "valid"),
        (GRACE, "granted", AFTER, "valid"),
        (GRACE, "unanswered", DURING, "grace"),
        (GRACE, "unanswered", AFTER, "expired"),
        (GRACE, "suspended", DURING, "suspended"),
        (GRACE, "refused", DURING, "expired"),
        (GRACE, "passed", DURING, "grace"),
        (GRACE, "passed", AFTER, "expired"),
        *(
            (EXPIRED, answer, DURING, "expired")
            for answer in ("granted", "unanswered", "suspended", "passed")
        ),
        *(
            (SUSPENDED, answer, AFTER, "suspended")
            for answer in ("granted", "unanswered", "refused", "passed")
        ),
    ],
)
def test_the_table(before: LicenceState, answer: str, now: float, after: str) -> None:
    assert step(before, answer, now).name == after


def step(state: LicenceState, answer: str, now: float, grace_s: float = GRACE_S) -> LicenceState:
    match answer:
        case "granted":
            return state.granted(now)
        case "unanswered":
            return state.unanswered(now, grace_s, Reason.UNREACHABLE, "away")
        case "suspended":
            return state.denied(Reason.SUSPENDED, "no more")
        case "refused":
            return state.denied(Reason.REVOKED, "no more")
    return state.passed(now, grace_s)


def test_what_happened_is_told() -> None:
    away = step(VALID, "unanswered", DURING)
    assert (away.checked, away.reason, away.detail) == (CHECKED, Reason.UNREACHABLE, "away")
    assert away.holds
    assert step(away, "passed", AFTER).outlasted
    assert not step(away, "refused", DURING).outlasted
    assert step(away, "granted", DURING) == LicenceState("valid", DURING)
    assert not UNLICENSED.holds


def test_a_token_of_an_earlier_check_carries_a_start_within_the_grace() -> None:
    assert step(remembered(CHECKED), "unanswered", DURING).name == "grace"
    assert step(remembered(CHECKED), "unanswered", AFTER).name == "expired"
    assert step(remembered(CHECKED), "suspended", DURING).name == "suspended"


ANSWERS = st.sampled_from(ALL_ANSWERS)


@given(st.lists(st.tuples(ANSWERS, st.floats(0, 200))))
def test_no_agent_runs_longer_than_the_grace_without_a_check(steps: list[tuple[str, float]]) -> None:
    state, now, last = LicenceState(), 0.0, None
    for answer, elapsed in steps:
        now += elapsed
        before = state
        state = step(state, answer, now)
        if answer == "granted" and not before.ended:
            last = now
        if state.name == "grace":
            assert last is not None
            assert now - last < GRACE_S
        if before.ended:
            assert state == before
        assert state.checked == last
        assert state.holds == (state.name in ("valid", "grace"))
        assert state.ended == (state.name in ENDED)


# What the machine's clock does between two looks: a step of its own, while so much time really goes by.
WALLS = st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0, 50)), max_size=20)


@given(st.lists(WALLS, min_size=1, max_size=4))
def test_no_setting_of_the_clock_prolongs_anything(lives: list[list[tuple[float, float]]]) -> None:
    wall, ticks, newest, really, state = 1e9, 0.0, 1e9, 0.0, remembered(1e9)
    for life in lives:
        # A start: the newest time ever seen comes from the disk, the monotonic clock begins anew.
        moments = Moments.begun(newest, wall, ticks)
        for jump, elapsed in life:
            wall, ticks, really = wall + jump + elapsed, ticks + elapsed, really + elapsed
            state = step(state, "unanswered", moments.now(ticks))
            newest = moments.now(ticks)
            assert newest >= 1e9 + really - 1e-3
            assert state.name == "expired" or really < GRACE_S + 1e-3


@given(st.floats(0, 1e9), st.floats(-1e9, 1e9), st.floats(0, 1e6))
def test_while_the_agent_runs_no_setting_of_the_clock_counts(
    newest: float, wall: float, later: float
) -> None:
    moments = Moments.begun(newest, wall, 5.0)
    assert moments.now(5.0 + later) == pytest.approx(max(newest, wall) + later)
    assert moments.now(4.0) == moments.now(5.0)


def test_the_breaker_opens_after_five_failures_and_lets_one_call_through_after_30_s() -> None:
    breaker, now = Breaker(), 10.0
    for _ in range(BREAKER_FAILURES - 1):
        breaker = breaker.failed(now)
        assert breaker.wait_s(now) == 0
    breaker = breaker.failed(now)
    assert (BREAKER_FAILURES, breaker.wait_s(now)) == (5, 30.0)
    assert breaker.wait_s(now + 29) == 1
    assert breaker.wait_s(now + 30) == 0
    again = breaker.failed(now + 30)
    assert again.wait_s(now + 30) == BREAKER_OPEN_S
    assert again.succeeded() == Breaker()


@given(st.floats(1, 1e6), st.floats(0, 1))
def test_a_lease_is_renewed_at_about_a_third(lease_s: float, chance: float) -> None:
    assert lease_s * 0.9 / 3 - 1e-6 <= renewal_s(lease_s, chance) <= lease_s * 1.1 / 3 + 1e-6
    assert renewal_s(lease_s, 0.5) == pytest.approx(lease_s / 3)


def test_a_failed_check_is_repeated_soon_then_later() -> None:
    breaker, waits = Breaker(), []
    for _ in range(BREAKER_FAILURES):
        breaker = breaker.failed(0.0)
        waits.append(retry_s(3_000, breaker, 0.0, 0.5))
    assert waits == [1, 2, 4, 8, 30]
    assert retry_s(3, Breaker().failed(0.0).failed(0.0), 0.0, 0.5) == pytest.approx(1)

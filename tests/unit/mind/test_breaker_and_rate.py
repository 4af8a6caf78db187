"""Patience with a provider, in numbers: waits between tries, the breaker, shares of a limit, Retry-After."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.mind import backoff
from chorus.mind.breaker import FAILURES_MAX, OPEN_FIRST_S, OPEN_MAX_S, Breaker
from chorus.mind.providers.retry_after import RETRY_AFTER_MAX_S, retry_after_s
from chorus.mind.rate import PERIOD_S, Share


def test_waits_grow_are_spread_and_end() -> None:
    assert [backoff.wait_s(n, 1.0) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, None]
    assert backoff.wait_s(1, 0.0) == 0.25
    assert backoff.wait_s(1, 0.0, 7.0) == 7.0
    assert backoff.wait_s(1, 1.0, 7.0) == pytest.approx(7.7)
    assert backoff.wait_s(1, 0.0, backoff.RETRY_AFTER_WAIT_MAX_S + 1) is None


def test_after_some_failures_a_provider_is_left_alone_for_a_while_that_grows() -> None:
    breaker, now = Breaker(), 100.0
    for _ in range(FAILURES_MAX - 1):
        breaker = breaker.failed(now)
        assert breaker.wait_s(now) == 0
    waits = []
    for _ in range(6):
        breaker = breaker.failed(now)
        waits.append(breaker.wait_s(now))
        now += waits[-1]
        assert breaker.wait_s(now) == 0
    assert waits == [OPEN_FIRST_S, 20, 40, 80, OPEN_MAX_S, OPEN_MAX_S]
    assert breaker.succeeded() == Breaker()


def test_a_server_that_says_how_long_is_left_alone_at_once_but_not_for_ever() -> None:
    assert Breaker().failed(5.0, 30.0).wait_s(5.0) == 30.0
    assert Breaker().failed(5.0, 1e9).wait_s(5.0) == OPEN_MAX_S


@given(st.integers(1, 100), st.lists(st.floats(0, 20), max_size=120))
def test_no_minute_has_more_calls_than_the_share(agents: int, gaps: list[float]) -> None:
    share, now, calls = Share(40), 0.0, list[float]()
    for gap in gaps:
        now += gap
        now += share.wait_s(now, agents)
        if share.wait_s(now, agents) == 0:
            share.take(now)
            calls.append(now)
    for first in calls:
        # A hair less than a minute, as the sums of waits are rounded.
        inside = [call for call in calls if first <= call < first + PERIOD_S - 1e-6]
        assert len(inside) <= max(1, 40 // agents)


def test_agents_beyond_the_limit_take_turns() -> None:
    share = Share(40)
    assert share.wait_s(0.0, 80) == 0
    share.take(0.0)
    assert share.wait_s(60.0, 80) == 60.0
    assert share.wait_s(60.0, 40) == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("soon", None),
        ("-3", None),
        ("Thu, 99 Foo 9999 00:00:00", None),
        ("٣", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, now=60.0) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_is_a_time_or_none(header: str) -> None:
    said = retry_after_s(header, now=0.0)
    assert said is None or 0 <= said <= RETRY_AFTER_MAX_S

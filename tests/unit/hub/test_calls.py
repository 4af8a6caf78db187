"""Calls that wait for their answer: one timer ends each at its own deadline."""

from __future__ import annotations

import asyncio

import pytest

from chorus.hub import HubClosed, HubTimeout
from chorus.hub.calls import Calls


async def test_a_call_ends_at_its_own_deadline_whatever_others_wait_for() -> None:
    late: list[int] = []
    calls = Calls(late.append)
    patient = calls.add(1, "patient", 3600, None)
    # Each of the two comes sooner than what the timer was set for: before its start, and after it went off.
    for ident, method in ((2, "first"), (3, "second")):
        with pytest.raises(HubTimeout, match=f"{method} had no answer within 0.01 s"):
            await calls.add(ident, method, 0.01, None)
    assert late == [2, 3]
    assert not patient.done()
    calls.lose()
    with pytest.raises(HubClosed):
        await patient


async def test_the_timer_goes_on_to_the_next_deadline() -> None:
    late: list[int] = []
    calls = Calls(late.append)
    ends = [calls.add(ident, "m", ident / 100, None) for ident in (1, 2, 3)]
    assert all(isinstance(end, HubTimeout) for end in await asyncio.gather(*ends, return_exceptions=True))
    assert late == [1, 2, 3]


async def test_what_was_answered_or_given_up_is_not_late() -> None:
    late: list[int] = []
    calls = Calls(late.append)
    answered, given_up, last = (calls.add(ident, "m", 0.01, None) for ident in (1, 2, 3))
    calls.take(1)
    given_up.cancel()
    with pytest.raises(HubTimeout):
        await last
    assert late == [3]
    assert calls.take(1) is None
    assert not answered.done()

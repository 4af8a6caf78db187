"""What depends on time, with the time passed in: leases, pauses, presence; and the shared proof of
leadership.
"""

from __future__ import annotations

import asyncio

import pytest

from chorus.coordinator.barrier import Barrier
from chorus.coordinator.exclusions import MAX_S, Exclusions
from chorus.coordinator.leases import Leases
from chorus.coordinator.presence import Presence
from chorus.hub import HubNotLeader

A, B = ("a", 1), ("b", 1)


def test_a_lease_is_over_a_tenth_after_its_time() -> None:
    leases = Leases(30)
    leases.reset([A], 0)
    leases.renew(B, 10)
    assert leases.next_due() == 33
    assert leases.due(32.9) == []
    assert leases.due(33) == [A]
    leases.renew(A, 30)
    assert leases.due(43) == [B]
    assert leases.due(63) == [B, A]
    leases.end(B)
    assert leases.due(63) == [A]
    assert B not in leases


def test_an_earlier_renewal_undoes_nothing() -> None:
    leases = Leases(30)
    leases.renew(A, 20)
    leases.renew(A, 10)
    assert leases.next_due() == 53


def test_a_new_leader_begins_anew() -> None:
    leases = Leases(30)
    leases.renew(A, 0)
    leases.reset([A, B], 100)
    assert leases.due(132) == []
    assert len(leases) == 2


def test_pauses_double_up_to_a_bound() -> None:
    exclusions = Exclusions()
    now = 0.0
    pauses = []
    for _ in range(9):
        exclusions.add("t", "p", "full", now)
        end = exclusions.next_end(now)
        assert end is not None
        assert exclusions.why("t", "p", now) == "full"
        assert exclusions.why("t", "q", now) is None
        pauses.append(end - now)
        now = end
        assert exclusions.why("t", "p", now) is None
    assert pauses == [1, 2, 4, 8, 16, 32, MAX_S, MAX_S, MAX_S]
    exclusions.forget("t")
    exclusions.add("t", "p", "full", now)
    assert exclusions.next_end(now) == now + 1


def test_presence_has_some_patience_with_going_and_none_with_coming() -> None:
    presence = Presence(15)
    listed = {"a": True, "b": True}
    assert presence.changes(listed, ["a"], 0) == []
    assert presence.changes(listed, ["a"], 29) == []
    assert presence.changes(listed, ["a", "b"], 29.5) == []
    assert presence.changes(listed, ["a"], 30) == []
    (change,) = presence.changes(listed, ["a"], 60)
    assert change[:2] == ("b", False)
    assert presence.changes({"a": True, "b": False}, ["a"], 61) == []
    assert presence.changes({"a": True, "b": False}, ["a", "b"], 62) == [("b", True, "answers")]


class Rounds:
    """Rounds that end when told to."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[int]] = []

    async def ask(self) -> int:
        self.begun.append(asyncio.get_running_loop().create_future())
        return await self.begun[-1]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_share_a_round_that_began_after_they_asked() -> None:
    rounds = Rounds()
    barrier = Barrier(rounds.ask)
    first = asyncio.create_task(barrier.wait())
    await turns()
    late = [asyncio.create_task(barrier.wait()) for _ in range(5)]
    await turns()
    assert len(rounds.begun) == 1
    rounds.begun[0].set_result(7)
    assert await first == 7
    await turns()
    assert len(rounds.begun) == 2
    assert not any(task.done() for task in late)
    rounds.begun[1].set_result(9)
    assert await asyncio.gather(*late) == [9] * 5


async def test_a_failed_round_fails_those_who_waited_for_it_and_no_others() -> None:
    rounds = Rounds()
    barrier = Barrier(rounds.ask)
    first = asyncio.create_task(barrier.wait())
    await turns()
    second = asyncio.create_task(barrier.wait())
    await turns()
    rounds.begun[0].set_exception(HubNotLeader("no"))
    with pytest.raises(HubNotLeader):
        await first
    await turns()
    rounds.begun[1].set_result(3)
    assert await second == 3

"""Three agents on hosts of their own while the network between them is cut, slow, lossy and out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .hosts import Faults, Host, Network, can_make_hosts, hosts
from .mesh_checks import agreed, check, leader, stream, submitted, voters
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

TIMING = {"CHORUS_ELECTION_HEARTBEAT": "300ms", "CHORUS_ELECTION_TIMEOUT": "2s", "CHORUS_TASK_LEASE": "5s"}
CUTS, TASKS = 4, 12
# A packet overtakes another that is delayed longer.
BAD = Faults(loss=0.3, duplicate=0.1, delay_s=(0.1, 0.3))


@pytest.fixture
def network() -> Network:
    return Network(seed=1)


@pytest.fixture
def three(needs: None, short_dir: Path, network: Network) -> Iterator[list[Host]]:
    if not can_make_hosts():
        pytest.skip("network namespaces cannot be made here: that takes root and iproute2")
    with hosts(3, short_dir, network) as made:
        for host in made:
            host.start(made, **TIMING)
        until(lambda: len(voters(made[0])) == 3 and agreed(made))
        yield made


def test_the_leader_is_cut_off_and_comes_back(three: list[Host]) -> None:
    acknowledged = stream(three, 3, "before")
    old = next(host for host in three if host.agent_id == agreed(three))
    rest = [host for host in three if host is not old]
    old.cut()
    until(lambda: (now := agreed(rest)) and now != old.agent_id)
    acknowledged += stream(rest, 6, "of the majority")
    # The minority decides nothing: what it is asked for is not acknowledged.
    assert submitted(old, "of the minority") is None
    check(rest, acknowledged)
    old.heal()
    until(lambda: agreed(three))
    acknowledged += stream(three, 3, "after")
    check(three, acknowledged)


def test_two_of_three_do_not_reach_each_other(three: list[Host]) -> None:
    first = next(host for host in three if host.agent_id == agreed(three))
    second, third = (host for host in three if host is not first)
    first.cut(second)
    # The leader has a majority: who reaches it goes on, who does not is told that nothing is decided there.
    acknowledged = stream([first, third], 6, "around a corner")
    assert len(acknowledged) == 6
    assert submitted(second, "at the cut end") is None
    check([first, third], acknowledged)
    assert leader(third) == first.agent_id
    first.heal(second)
    until(lambda: agreed(three))
    check(three, acknowledged)


def test_loss_delay_duplicates_and_another_order(three: list[Host], network: Network) -> None:
    network.faults = BAD
    acknowledged = stream(three, TASKS, "bad")
    network.faults = Faults()
    until(lambda: agreed(three))
    acknowledged += stream(three, 3, "good")
    assert len(acknowledged) >= 3
    check(three, acknowledged)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hosts_are_cut_off_in_turn_under_a_stream_of_tasks(three: list[Host], seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(CUTS):
            victim = dice.choice(three)
            rest = [host for host in three if host is not victim]
            working = pool.submit(stream, three, TASKS, f"cut {number}")
            victim.cut()
            until(lambda rest=rest: agreed(rest))
            acknowledged += stream(rest, 2, f"without {victim.number}")
            victim.heal()
            acknowledged += working.result()
            until(lambda: agreed(three))
    assert len(acknowledged) >= 2 * CUTS
    check(three, acknowledged)

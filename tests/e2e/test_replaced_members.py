"""Agents are replaced one after the other, with empty disks, while tasks come in: the mesh outlives them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .hosts import Network, can_make_hosts, hosts
from .mesh_checks import FAST, all_acknowledged, check, leading, members, until_whole
from .sites import Site, sites
from .test_run import until

pytestmark = pytest.mark.e2e

CHANGES, TASKS = 10, 100
CHANGES_IN_SHORT, TASKS_IN_SHORT = 3, 9


@pytest.fixture
def three_hosts(needs: None, short_dir: Path) -> Iterator[Sequence[Site]]:
    if not can_make_hosts():
        pytest.skip("network namespaces cannot be made here: that takes root and iproute2")
    with hosts(3, short_dir, Network(seed=1)) as made:
        yield made


@pytest.fixture
def three_sites(needs: None, short_dir: Path) -> Iterator[Sequence[Site]]:
    with sites(3, short_dir) as made:
        yield made


def replaced_in_turn(three: Sequence[Site], changes: int, tasks: int) -> None:
    """Replaces one agent after the other while so many tasks in all come to the others."""
    for site in three:
        site.start(three, **FAST)
    until_whole(three)
    first = {site.peer for site in three}
    task_ids: list[str] = []
    share = tasks // changes
    with ThreadPoolExecutor(1) as pool:
        for number in range(changes):
            victim = three[number % len(three)]
            rest = [site for site in three if site is not victim]
            gone = victim.peer
            working = pool.submit(all_acknowledged, rest, share, f"change {number}")
            began = time.monotonic()
            victim.lose()
            until(lambda rest=rest, gone=gone: leading(rest) not in (None, False, gone))
            led = time.monotonic() - began
            victim.start(three, **FAST)
            task_ids += working.result()
            until_whole(three)
            print(
                f"change {number}: a leader after {led:.1f} s, whole after {time.monotonic() - began:.1f} s"
            )
    for site in three:
        listed = members(site)
        assert len(listed) == 3
        assert all(member["present"] and member["voter"] for member in listed)
        assert first.isdisjoint(member["peer_id"] for member in listed)
    assert len(task_ids) == share * changes
    check(three, task_ids)


@pytest.mark.heavy
def test_all_three_are_replaced(three_sites: Sequence[Site]) -> None:
    replaced_in_turn(three_sites, CHANGES_IN_SHORT, TASKS_IN_SHORT)


@pytest.mark.heavy
def test_ten_are_replaced_under_a_hundred_tasks(three_hosts: Sequence[Site]) -> None:
    replaced_in_turn(three_hosts, CHANGES, TASKS)

"""Meshes that began apart become one as they meet if their agents were alone; larger ones say what to do."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.readme import commands

from .hosts import Names, Network, can_make_hosts, hosts
from .mesh_checks import (
    FAST,
    acknowledged,
    all_acknowledged,
    check,
    mesh_of,
    record_of,
    task_body,
    until_genuine,
    until_whole,
    versions,
    written,
)
from .sites import P2P_PORT, Site, sites
from .test_run import until

pytestmark = pytest.mark.e2e

ADDRESS = "ucxl://alice:agent@apart:one/*^/notes.md"
# What replicas of a service know of each other: a name for all that run.
NAME = "tasks.test"
# The spans, in seconds, in which agents start and in which the name leads to each after its start. In the
# short form each has founded a mesh of its own by then.
SPANS = ((0.0, 20.0), (0.0, 10.0))
SPANS_IN_SHORT = ((0.0, 2.0), (5.0, 8.0))
SEEDS, SEEDS_IN_SHORT = 10, 2


def connect(some: Sequence[Site]) -> None:
    """Each meets each."""

    async def dial() -> None:
        await asyncio.gather(*(one.dial(other) for one, other in itertools.combinations(some, 2)))

    asyncio.run(dial())


def ballot(site: Site, record: str) -> dict[str, Any]:
    """The votes on a decision record; empty while this agent does not know it."""
    return site.get(f"/api/v1/decisions/{record}/votes") or {}


@pytest.fixture
def four(needs: None, short_dir: Path) -> Iterator[list[Site]]:
    with sites(4, short_dir) as made:
        yield made


@pytest.mark.heavy
def test_three_lone_agents_become_one_mesh_with_all_that_they_had(four: list[Site]) -> None:
    three = four[:3]
    for number, site in enumerate(three):
        # Nobody tells them of one another.
        site.start(**FAST, CHORUS_AGENT_EXPERTISE=f"skill-{number}")
    until(lambda: all(mesh_of(site) for site in three))
    assert len({mesh_of(site) for site in three}) == 3
    ended = [acknowledged([site], task_body(f"ended on {site.agent_id}")) for site in three]
    voted: list[str] = []
    for site, task_id in zip(three, ended, strict=True):
        voted.append(record_of(site, task_id))
        answer = site.ask("POST", f"/api/v1/decisions/{voted[-1]}/votes", json={"vote": "approve"})
        assert answer.status_code == 201, answer.text
        until(lambda site=site, record=voted[-1]: ballot(site, record).get("record"))
    # Only another of them can have it.
    waiting = [
        acknowledged(
            [site], task_body(f"waits on {site.agent_id}", required_expertise=[f"skill-{(number + 1) % 3}"])
        )
        for number, site in enumerate(three)
    ]
    for site in three[:2]:
        written(site, ADDRESS, f"by {site.agent_id}")
    written(three[2], ADDRESS.replace("notes", "alone"), "one")
    running = [acknowledged([site], task_body(f"runs on {site.agent_id}", "sleep 3; echo")) for site in three]
    for site, task_id in zip(three, running, strict=True):
        until(lambda site=site, task_id=task_id: site.get(f"/api/v1/tasks/{task_id}")["state"] == "running")
    began = time.monotonic()
    connect(three)
    until_whole(three)
    print(f"one mesh after {time.monotonic() - began:.1f} s")
    check(three, [*ended, *waiting, *running])
    for site in three:
        until(
            lambda site=site: sorted(versions(site, ADDRESS)) == [f"by {one.agent_id}" for one in three[:2]]
        )
        until(lambda site=site: versions(site, ADDRESS.replace("notes", "alone")) == ["one"])
        for record in voted:
            until(lambda site=site, record=record: ballot(site, record).get("approve") == 1)
    assert len({tuple(versions(site, ADDRESS)) for site in three}) == 1
    # A record of each task and of each ballot.
    for site in three:
        until_genuine(site, 4 * len(three))


@pytest.mark.heavy
def test_a_lone_agent_joins_a_larger_mesh(four: list[Site]) -> None:
    *three, lone = four
    # It is the first to be there: its mesh is older than that of the others.
    lone.start(**FAST, CHORUS_AGENT_EXPERTISE="lone")
    until(lambda: mesh_of(lone))
    own = all_acknowledged([lone], 2, "of the lone one")
    check([lone], own)
    for site in three:
        site.start(three, **FAST)
    until_whole(three)
    theirs = all_acknowledged(three, 2, "of the three")
    waiting = acknowledged(three, task_body("waits", required_expertise=["lone"]))
    mesh = mesh_of(three[0])
    connect(four)
    until_whole(four)
    assert mesh_of(lone) == mesh
    check(four, [*own, *theirs, waiting])


@pytest.mark.heavy
def test_two_meshes_of_two_say_what_to_do_and_one_moves_over(four: list[Site]) -> None:
    first, second = four[:2], four[2:]
    pairs = (first, second)
    for pair in pairs:
        for site in pair:
            site.start(pair, **FAST)
    until_whole(first)
    until_whole(second)
    meshes = [mesh_of(pair[0]) for pair in pairs]
    task_ids = [all_acknowledged(pair, 2, f"of pair {number}") for number, pair in enumerate(pairs)]
    for pair, of_pair in zip(pairs, task_ids, strict=True):
        check(pair, of_pair)
    connect(four)
    for pair, other in ((first, meshes[1]), (second, meshes[0])):
        for site in pair:
            until(lambda site=site, other=other: other in site.health()["election"]["other_meshes"])
            told = " ".join(site.health()["warnings"])
            assert str(other) in told
            assert "chorusctl members rejoin" in told
    # Neither goes by itself.
    assert [mesh_of(pair[0]) for pair in pairs] == meshes
    for site in second:
        site.follow(commands("Rejoin").strip() + " --yes")
        until(lambda site=site: mesh_of(site) == meshes[0])
    until_whole(four)
    check(four, task_ids[0])
    for site in second:
        # What it had lies where it can be read.
        assert list((site.data_dir / "replaced").iterdir())


@pytest.mark.parametrize(
    ("seed", "spans"),
    [
        *((seed, SPANS_IN_SHORT) for seed in range(SEEDS_IN_SHORT)),
        *(pytest.param(seed, SPANS, marks=pytest.mark.heavy) for seed in range(SEEDS)),
    ],
)
def test_agents_that_learn_of_each_other_late_are_one_mesh(
    needs: None, short_dir: Path, seed: int, spans: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    if not can_make_hosts():
        pytest.skip("network namespaces cannot be made here: that takes root and iproute2")
    dice = random.Random(seed)
    names = Names()
    with hosts(3, short_dir, Network(seed), names) as three:
        steps: list[tuple[float, str, Any]] = []
        for host in three:
            start = dice.uniform(*spans[0])
            steps += [(start, "start", host), (start + dice.uniform(*spans[1]), "name", host)]
        steps.sort(key=lambda step: step[0])
        began = time.monotonic()
        for due, what, host in steps:
            # The test's own schedule: nothing is waited for.
            time.sleep(max(0.0, began + due - time.monotonic()))
            if what == "start":
                host.start(**FAST, CHORUS_BOOTSTRAP_PEERS=f"/dns4/{NAME}/tcp/{P2P_PORT}")
            else:
                names.add(NAME, host.address)
        last = time.monotonic()
        until_whole(three)
        print(f"seed {seed}: one mesh {time.monotonic() - last:.1f} s after the last step")
        check(three, all_acknowledged(three, 3, "of one mesh"))

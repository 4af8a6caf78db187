"""A majority of the votes is lost for good: the rest says so, and is made a mesh by `members recover`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy.readme import commands

from .mesh_checks import (
    FAST,
    acknowledged,
    all_acknowledged,
    check,
    ended_task,
    mesh_of,
    record_of,
    records,
    task_body,
    until_genuine,
    until_whole,
    versions,
    voters,
    written,
)
from .sites import Site, sites
from .test_run import until

pytestmark = pytest.mark.e2e

COMMAND = "chorusctl members recover"
ADDRESS = "ucxl://alice:agent@kept:one/*^/notes.md"
# What a task that has ended says for ever. Who leads, and how many hold its source, changes.
KEPT = (
    "title",
    "state",
    "reason",
    "attempt",
    "agent_id",
    "attempts",
    "result",
    "created_at",
    "claimed_at",
    "started_at",
    "finished_at",
)


@pytest.fixture
def five(needs: None, short_dir: Path) -> Iterator[list[Site]]:
    with sites(5, short_dir) as made:
        yield made


def lost_at_once(some: Sequence[Site]) -> None:
    """All of them are gone for good before anybody can do anything about the first."""
    with ThreadPoolExecutor(len(some)) as pool:
        list(pool.map(Site.kill, some))
    for site in some:
        site.lose()


def kept(site: Site, task_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What the agent says of tasks that have ended."""
    tasks = [ended_task(site, task_id) for task_id in task_ids]
    return [{name: task[name] for name in KEPT} for task in tasks]


def output(site: Site, task_id: str) -> bytes:
    return site.ask("GET", f"/api/v1/tasks/{task_id}/logs").content


def artifact(site: Site, task_id: str, path: str) -> bytes:
    answer = site.ask("GET", f"/api/v1/tasks/{task_id}/artifacts/{path}")
    assert answer.status_code == 200, answer.text
    return answer.content


def until_said_to_be_lost(site: Site, lost: Sequence[Site]) -> None:
    """Waits until the agent's health names who is lost and the way out."""

    def told() -> bool:
        detail = site.health().get("election", {}).get("detail", "")
        return COMMAND in detail and all(one.agent_id in detail for one in lost)

    until(told)


@pytest.mark.heavy
def test_one_of_three_goes_on_with_all_that_it_has(five: list[Site]) -> None:
    survivor, *lost = three = five[:3]
    for site, skill in zip(three, ("kept", "gone", "gone"), strict=True):
        site.start(three, **FAST, CHORUS_AGENT_EXPERTISE=skill)
    until_whole(three)
    mesh = mesh_of(survivor)
    # While there is a leader there is nothing to recover.
    assert survivor.ctl("members", "recover", "--yes", check=False).returncode != 0
    own = acknowledged(
        [survivor],
        task_body(
            "own", "echo out; echo made > report.txt", artifacts=["report.txt"], required_expertise=["kept"]
        ),
    )
    ended = [own, *all_acknowledged(three, 4, "ended")]
    check(three, ended)
    record = record_of(survivor, own)
    assert lost[0].ask("POST", f"/api/v1/decisions/{record}/votes", json={"vote": "approve"}).is_success
    assert survivor.ask("POST", f"/api/v1/decisions/{record}/votes", json={"vote": "approve"}).is_success
    for number, site in enumerate((lost[0], survivor, lost[1])):
        written(site, ADDRESS, f"version {number}")
    waiting = acknowledged(three, task_body("waits", required_expertise=["later"]))
    until(lambda: survivor.get(f"/api/v1/tasks/{waiting}"))
    until(lambda: len(versions(survivor, ADDRESS)) == 3)

    def votes() -> Any:
        return survivor.get(f"/api/v1/decisions/{record}/votes")

    until(lambda: (votes() or {}).get("record"))
    # A record of each result, and of the votes.
    until_genuine(survivor, len(ended) + 1)
    before = (kept(survivor, ended), output(survivor, own), artifact(survivor, own, "report.txt"), votes())

    running = [
        acknowledged(three, task_body(f"runs on {skill}", "sleep 10; echo", required_expertise=[skill]))
        for skill in ("gone", "kept")
    ]
    for task_id in running:
        until(
            lambda task_id=task_id: (
                (said := survivor.get(f"/api/v1/tasks/{task_id}")) and said["state"] == "running"
            )
        )
    lost_at_once(lost)
    until_said_to_be_lost(survivor, lost)
    plan = survivor.ask("GET", "/api/v1/members/recovery").json()
    assert (plan["mesh"], plan["needed"], plan["longest"]) == (mesh, True, survivor.agent_id)
    assert {voter["agent_id"] for voter in plan["voters"] if not voter["reachable"]} == {
        site.agent_id for site in lost
    }
    # Nobody has said yes.
    assert survivor.ctl("members", "recover", check=False).returncode != 0
    assert mesh_of(survivor) == mesh
    survivor.ctl("members", "recover", "--yes", "--json")

    assert mesh_of(survivor) not in (None, mesh)
    after = (kept(survivor, ended), output(survivor, own), artifact(survivor, own, "report.txt"), votes())
    assert after == before
    assert versions(survivor, ADDRESS) == ["version 0", "version 1", "version 2"]
    assert records(survivor)["genuine"] > len(ended)
    assert not (survivor.data_dir / "carried.jsonl").exists()
    assert list((survivor.data_dir / "replaced").iterdir())

    for site, skill in zip(lost, ("later", "gone"), strict=True):
        site.start(three, **FAST, CHORUS_AGENT_EXPERTISE=skill)
    until_whole(three)
    check(three, [*ended, waiting, *running, *all_acknowledged(three, 3, "after")])
    for site in three:
        assert kept(site, ended) == before[0]
        until(lambda site=site: versions(site, ADDRESS) == ["version 0", "version 1", "version 2"])


@pytest.mark.heavy
def test_two_of_five_recover_and_the_second_follows_by_itself(five: list[Site]) -> None:
    for site in five:
        site.start(five, **FAST)
    until_whole(five)
    rest, lost = five[:2], five[2:]
    mesh = mesh_of(rest[0])
    task_ids = all_acknowledged(five, 5, "ended")
    check(five, task_ids)
    waiting = acknowledged(five, task_body("waits", required_expertise=["later"]))
    for site in rest:
        until(lambda site=site: site.get(f"/api/v1/tasks/{waiting}"))
        written(site, ADDRESS, f"by {site.agent_id}")
    before = [kept(site, task_ids) for site in rest]
    lost_at_once(lost)
    for site in rest:
        until_said_to_be_lost(site, lost)
    plan = rest[0].ask("GET", "/api/v1/members/recovery").json()
    assert [one["agent_id"] for one in plan["reachable"]] == [rest[1].agent_id]
    first = next(site for site in rest if site.agent_id == plan["longest"])
    done = json.loads(first.ctl("members", "recover", "--yes", "--json").stdout)
    assert done
    until_whole(rest)
    assert mesh_of(first) != mesh
    assert [kept(site, task_ids) for site in rest] == before
    for site in rest:
        until(lambda site=site: sorted(versions(site, ADDRESS)) == [f"by {one.agent_id}" for one in rest])
        assert site.get(f"/api/v1/tasks/{waiting}")["state"] == "announced"
    lost[0].start(five, **FAST, CHORUS_AGENT_EXPERTISE="later")
    three = [*rest, lost[0]]
    until_whole(three)
    check(three, [*task_ids, waiting, *all_acknowledged(three, 3, "after")])


@pytest.mark.heavy
@pytest.mark.parametrize("votes", [True, False], ids=["the one that votes", "the one that does not"])
def test_one_of_two_is_lost(five: list[Site], votes: bool) -> None:
    two = five[:2]
    for site in two:
        site.start(two, **FAST)
    until_whole(two)
    mesh = mesh_of(two[0])
    (voter,) = (one["peer_id"] for one in voters(two[0]))
    (lost,) = (site for site in two if (site.peer == voter) == votes)
    (survivor,) = (site for site in two if site is not lost)
    task_ids = all_acknowledged(two, 2, "ended")
    check(two, task_ids)
    before = kept(survivor, task_ids)
    lost.lose()
    if votes:
        until_said_to_be_lost(survivor, [lost])
        survivor.follow(commands("Recover").strip() + " --yes")
    # Alone it goes on; the other is removed in time.
    until_whole([survivor])
    assert (mesh_of(survivor) != mesh) == votes
    assert kept(survivor, task_ids) == before
    check([survivor], all_acknowledged([survivor], 2, "after"))
    lost.start(two, **FAST)
    until_whole(two)
    check(two, task_ids)

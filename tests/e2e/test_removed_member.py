"""Members are removed, by hand or after their absence, and come back with what they had not said yet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .hosts import Host, Network, can_make_hosts, hosts
from .mesh_checks import FAST, acknowledged, check, leading, members, task_body, until_whole
from .sites import Site, sites
from .test_run import until

pytestmark = pytest.mark.e2e

# Long enough for a member to be removed while the attempt that it runs is still its own.
LEASE = {"CHORUS_TASK_LEASE": "20s"}
# Nobody is removed but by hand.
LONG = FAST | {"CHORUS_MEMBER_ABSENCE": "600s"}
COMMAND = "sleep 6; echo done"
TRIES = 10


@pytest.fixture
def three_hosts(needs: None, short_dir: Path) -> Iterator[list[Host]]:
    if not can_make_hosts():
        pytest.skip("network namespaces cannot be made here: that takes root and iproute2")
    with hosts(3, short_dir, Network(seed=1)) as made:
        for host in made:
            skill = "only" if host is made[-1] else ""
            host.start(made, **FAST | LEASE, CHORUS_AGENT_EXPERTISE=skill)
        until_whole(made)
        yield made


@pytest.fixture
def three(needs: None, short_dir: Path) -> Iterator[list[Site]]:
    with sites(3, short_dir) as made:
        for site in made:
            site.start(made, **LONG)
        until_whole(made)
        yield made


def row(site: Site, peer: str) -> dict[str, Any] | None:
    """A member as this agent lists it."""
    return next((member for member in members(site) if member["peer_id"] == peer), None)


def removed(some: list[Any], peer: str) -> None:
    """Waits until all of these agents list a member no more."""
    for site in some:
        until(lambda site=site: members(site) and row(site, peer) is None)


def state_of(site: Site, task_id: str) -> str | None:
    """The task's state as this agent tells it; None while it does not."""
    return (site.get(f"/api/v1/tasks/{task_id}") or {}).get("state")


def cut_off_at_work(three: list[Host], *skills: str) -> tuple[Host, list[Host], str]:
    """The host that is cut off while it runs the task, the rest, and the task's id."""
    for number in range(TRIES):
        task_id = acknowledged(three, task_body(f"cut off {number}", COMMAND, required_expertise=skills))
        until(lambda task_id=task_id: state_of(three[0], task_id) in ("running", "completed"))
        agent_id = three[0].get(f"/api/v1/tasks/{task_id}")["agent_id"]
        (victim,) = (host for host in three if host.agent_id == agent_id)
        rest = [host for host in three if host is not victim]
        victim.cut()
        if state_of(rest[0], task_id) == "running":
            return victim, rest, task_id
        # It was done before it was cut off.
        victim.heal()
        until_whole(three)
    raise AssertionError("no task was cut off while it ran")


def came_back(three: list[Host], victim: Host, peer: str, raft_id: str) -> None:
    """Waits until the mesh is whole; the removed agent is itself, with its identity, and a new raft id."""
    until_whole(three)
    assert victim.peer == peer
    found = row(three[0], peer)
    assert found is not None
    assert int(found["raft_id"]) > int(raft_id)
    assert list((victim.data_dir / "replaced").iterdir())


@pytest.mark.heavy
def test_a_result_that_another_has_meanwhile_is_superseded(three_hosts: list[Host]) -> None:
    victim, rest, task_id = cut_off_at_work(three_hosts)
    peer = victim.peer
    before = row(rest[0], peer)
    assert before is not None
    removed(rest, peer)
    # Another does it once the lease is over.
    until(lambda: state_of(rest[0], task_id) == "completed")
    task = rest[0].get(f"/api/v1/tasks/{task_id}")
    assert (task["attempt"], task["agent_id"] != victim.agent_id) == (2, True)
    victim.heal()
    came_back(three_hosts, victim, peer, before["raft_id"])
    until(lambda: [line for line in victim.said("result superseded") if task_id in line])
    check(three_hosts, [task_id])


@pytest.mark.heavy
def test_a_result_that_nobody_else_has_counts_once(three_hosts: list[Host]) -> None:
    victim, rest, task_id = cut_off_at_work(three_hosts, "only")
    peer = victim.peer
    before = row(rest[0], peer)
    assert before is not None
    removed(rest, peer)
    victim.heal()
    came_back(three_hosts, victim, peer, before["raft_id"])
    check(three_hosts, [task_id])
    task = three_hosts[0].get(f"/api/v1/tasks/{task_id}")
    assert task["agent_id"] == victim.agent_id
    if task["attempt"] != 1:
        # It was awarded again before the first attempt's result was heard, which then is too late.
        until(lambda: [line for line in victim.said("result superseded") if task_id in line])


@pytest.mark.heavy
def test_members_are_removed_by_hand(three: list[Site]) -> None:
    leader = until(lambda: leading(three))
    # The leader is refused for another reason.
    first, second, third = sorted(three, key=lambda site: site.peer != leader)
    refused = first.ctl("members", "remove", third.agent_id, "--yes", check=False)
    assert refused.returncode != 0
    assert "is present" in refused.stderr
    assert "force" in refused.stderr
    unknown = first.ctl("members", "remove", "no-such-agent", "--yes", check=False)
    assert unknown.returncode != 0
    assert "no-such-agent" in unknown.stderr
    assert first.ask("DELETE", "/api/v1/members/no-such-agent").status_code == 404

    old = third.peer
    third.lose()
    third.start(three, **LONG)
    # The name is worn by two, and belongs to the one that is there.
    until(lambda: len([one for one in members(first) if one["agent_id"] == third.agent_id]) == 2)
    until(lambda: (found := row(first, old)) and not found["present"])
    until(lambda: (found := row(first, third.peer)) and found["present"])
    assert first.ctl("members", "remove", third.agent_id, "--yes", check=False).returncode != 0
    first.ctl("members", "remove", old, "--yes")
    removed(three, old)
    until_whole(three)
    listed = json.loads(first.ctl("members", "--all", "--json").stdout)["items"]
    assert {one["peer_id"]: one["state"] for one in listed} == {
        old: "removed",
        **{site.peer: "present" for site in three},
    }

    # One that comes back with its disk is taken in anew.
    peer = second.peer
    before = row(first, peer)
    assert before is not None
    second.kill()
    until(lambda: (found := row(first, peer)) and not found["present"])
    assert first.ask("DELETE", f"/api/v1/members/{second.agent_id}").is_success
    removed([first, third], peer)
    assert first.ask("DELETE", f"/api/v1/members/{second.agent_id}").status_code == 404
    second.start(three, **LONG)
    until_whole(three)
    assert second.peer == peer
    after = row(first, peer)
    assert after is not None
    assert int(after["raft_id"]) > int(before["raft_id"])
    shown = {one["peer_id"]: one["state"] for one in first.get("/api/v1/members", all="true")["items"]}
    assert shown[peer] == "present"

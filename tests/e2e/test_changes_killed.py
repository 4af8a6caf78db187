"""Agents are killed in the midst of changes of members: a term has one leader, a mesh has votes."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .mesh_checks import FAST, NOBODY, acknowledged, leading, members, mesh_of, task_body, until_whole
from .sites import Site, sites
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

FASTER = FAST | {"CHORUS_ELECTION_TIMEOUT": "1s", "CHORUS_MEMBER_ABSENCE": "3s"}
SEEDS = 50
VICTIMS = ("leader", "joining", "removed")
# A kill comes within this of the change's beginning: votes are moved after 2 s, members removed after 3 s.
CHANGE_S = 7.0
LOOK_EVERY_S = 0.1
TASKS_EACH = 2


@dataclass
class Watched:
    """A mesh, and what its agents said in all that time."""

    three: list[Site]
    # The agents that said of themselves, or of another, that it leads, by mesh and term.
    leaders: defaultdict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    without_votes: list[str] = field(default_factory=list)
    task_ids: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Asks every agent once."""
        for site in self.three:
            said = site.get("/api/v1/election")
            if said and said["mesh"] and said["leader_peer"]:
                self.leaders[said["mesh"], said["term"]].add(said["leader_peer"])
            if said and said["mesh"] and not any(member["voter"] for member in said["members"]):
                self.without_votes.append(f"{site.agent_id}: {said}")

    def read_logs(self) -> None:
        """Adds what the agents' signed logs tell of terms that nobody was asked in."""
        for site in self.three:
            done = site.ctl("log", "-n", "1000", "--type", "leader_changed", "--json")
            mesh = str(until(lambda site=site: mesh_of(site)))
            for line in done.stdout.splitlines():
                entry = json.loads(line)["data"]
                if entry["leader"]:
                    self.leaders[mesh, int(entry["term"])].add(entry["leader"])

    def watch(self) -> None:
        """Looks until it is over."""
        while not self.over.wait(LOOK_EVERY_S):
            self.look()


@pytest.fixture(scope="module")
def watched(needs: None) -> Iterator[Watched]:
    with (
        tempfile.TemporaryDirectory(prefix="chorus-t-", dir="/tmp") as folder,
        sites(3, Path(folder)) as three,
    ):
        for site in three:
            site.start(three, **FASTER)
        until_whole(three)
        made = Watched(three)
        thread = threading.Thread(target=made.watch)
        thread.start()
        yield made
        made.over.set()
        thread.join()


def led_by(some: Sequence[Site]) -> Site:
    """The site whose agent all of these say leads, once it is one of them."""
    peers = {site.peer: site for site in some}
    return peers[until(lambda: (peer := leading(some)) in peers and peer)]


def replaced(site: Site, three: Sequence[Site]) -> None:
    site.lose()
    site.start(three, **FASTER)


def restarted(site: Site, three: Sequence[Site]) -> None:
    site.kill()
    site.start(three, **FASTER)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_kill_between_the_steps_of_a_change(watched: Watched, seed: int) -> None:
    three, dice = watched.three, random.Random(seed)
    until_whole(three)
    changing = dice.choice(three)
    rest = [site for site in three if site is not changing]
    # The moment is the test's input: nothing is waited for.
    moment_s = dice.uniform(0, CHANGE_S)
    peer = changing.peer
    watched.task_ids += [
        acknowledged(rest, task_body(f"seed {seed}", required_expertise=[NOBODY])) for _ in range(TASKS_EACH)
    ]
    match VICTIMS[seed % len(VICTIMS)]:
        case "leader":
            replaced(changing, three)
            time.sleep(moment_s)
            victim = led_by(rest)
            restarted(victim, three)
        case "joining":
            replaced(changing, three)
            time.sleep(moment_s)
            restarted(changing, three)
        case "removed":
            changing.kill()
            until(lambda: not any(one["peer_id"] == peer for one in members(rest[0]) or [{"peer_id": peer}]))
            changing.start(three, **FASTER)
            time.sleep(moment_s)
            restarted(changing, three)
    until_whole(three)
    watched.read_logs()
    assert {at: peers for at, peers in watched.leaders.items() if len(peers) > 1} == {}
    assert watched.without_votes == []
    assert len({mesh for mesh, _ in watched.leaders}) == 1
    for site in three:
        for task_id in watched.task_ids:
            until(lambda site=site, task_id=task_id: site.get(f"/api/v1/tasks/{task_id}"))

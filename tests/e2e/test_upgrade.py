"""Agents of an earlier release and of this one in one mesh; folders of the earlier one under this one."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chorus.table.members import TABLE_VERSION
from chorus.wire.ids import new_id

from .mesh_checks import (
    FAST,
    acknowledged,
    check,
    ended_task,
    mesh_of,
    task_body,
    until_genuine,
    until_whole,
    versions,
    written,
)
from .sites import Site, sites
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

ROOT = Path(__file__).resolve().parents[2]
# The last commit whose table takes no goals.
BEFORE_GOALS = "c8a86c7c"
# A first build compiles the core.
BUILD_TIMEOUT_S = 3600
TASKS = 30
ADDRESS = "ucxl://alice:agent@kept:upgrade/*^/notes.md"


def release(*commit: str) -> str:
    """The Python of an earlier release: of a commit, or of the one before this."""
    command = [str(ROOT / "scripts" / "previous.sh"), *commit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if "does not have the commit" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def three(needs: None, short_dir: Path) -> Iterator[Sequence[Site]]:
    with sites(3, short_dir) as made:
        yield made


@pytest.fixture
def five(needs: None, short_dir: Path) -> Iterator[Sequence[Site]]:
    with sites(5, short_dir) as made:
        yield made


def start(site: Site, all_of_them: Sequence[Site], python: str = "") -> None:
    """Starts an agent that alone can run tasks for its own name; this release's without a Python."""
    site.python = python or sys.executable
    site.start(all_of_them, CHORUS_AGENT_EXPERTISE=site.agent_id, **FAST)


def work(some: Sequence[Site], count: int, name: str) -> list[str]:
    """So many tasks, for each of the agents in turn and through any of them."""
    turn = itertools.islice(itertools.cycle(some), count)
    return [
        acknowledged(some, task_body(f"{name} {number}", required_expertise=[site.agent_id]), number)
        for number, site in enumerate(turn)
    ]


def build_of(python: str) -> str:
    """What a release says of itself."""
    words = [python, "-m", "chorus.agent", "--version"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_a_mesh_is_upgraded_agent_by_agent_under_load(three: Sequence[Site]) -> None:
    earlier = release()
    assert build_of(earlier) != build_of(sys.executable)
    for site in three:
        start(site, three, earlier)
    until_whole(three)
    mesh, peers = mesh_of(three[0]), {site.agent_id: site.peer for site in three}
    task_ids = work(three, 3, "before")
    check(three, task_ids)
    written(three[0], ADDRESS, "of the earlier release")
    with ThreadPoolExecutor(1) as pool:
        for site in three:
            others = [one for one in three if one is not site]
            # Two thirds of it while the agent is away or comes back, a third in the mixed mesh.
            working = pool.submit(work, others, TASKS * 2 // 9, f"without {site.agent_id}")
            site.stop()
            start(site, three)
            task_ids += working.result()
            until_whole(three)
            task_ids += work(three, TASKS // 9 + 1, f"with a new {site.agent_id}")
    assert len(task_ids) > TASKS
    check(three, task_ids)
    ran = {ended_task(three[0], task_id)["agent_id"] for task_id in task_ids}
    assert ran == set(peers)
    assert (mesh_of(three[0]), {site.agent_id: site.peer for site in three}) == (mesh, peers)
    written(three[1], ADDRESS, "of this one")
    for site in three:
        until(lambda site=site: versions(site, ADDRESS) == ["of the earlier release", "of this one"])
        until_genuine(site, len(task_ids))


def test_every_task_of_a_mixed_mesh_of_five_ends_once(five: Sequence[Site]) -> None:
    earlier = release()
    for site, python in zip(five, ("", earlier, "", earlier, ""), strict=True):
        start(site, five, python)
    until_whole(five)
    task_ids = work(five, TASKS, "mixed")
    check(five, task_ids)
    ran = {ended_task(five[0], task_id)["agent_id"] for task_id in task_ids}
    assert ran == {site.agent_id for site in five}


def test_a_folder_of_an_earlier_release_opens_in_this_one(three: Sequence[Site]) -> None:
    site = three[0]
    start(site, [site], release())
    until(lambda: mesh_of(site))
    task_ids = work([site], 3, "before")
    before = [ended_task(site, task_id) for task_id in task_ids]
    written(site, ADDRESS, "of the earlier release")
    entries, peer = site.get("/api/v1/log", limit=1)["length"], site.peer
    site.stop()
    start(site, [site])
    until(lambda: site.get("/api/v1/status"))
    assert [ended_task(site, task_id) for task_id in task_ids] == before
    assert site.peer == peer
    assert versions(site, ADDRESS) == ["of the earlier release"]
    assert site.get("/api/v1/log", limit=1)["length"] > entries
    assert site.ctl("log", "--verify").returncode == 0
    check([site], work([site], 3, "after"))


def goal(site: Site) -> Any:
    """The answer to a task without commands."""
    return site.ask(
        "POST", "/api/v1/tasks", json={"task_id": new_id(), "title": "A goal", "checks": ["true"]}
    )


def test_what_an_earlier_release_does_not_know_is_refused_by_name(three: Sequence[Site]) -> None:
    """Until the last agent of it has been upgraded, and from then on it is taken."""
    old, new, another = three
    # It founds the mesh: others would have raised its table by themselves before it came.
    start(old, three, release(BEFORE_GOALS))
    until(lambda: mesh_of(old))
    for site in (new, another):
        start(site, three)
    until_whole(three)
    refusal = goal(new)
    assert refusal.status_code == 503, refusal.text
    assert f"these run an older release: {old.agent_id} (" in refusal.json()["detail"]
    assert another.agent_id not in refusal.json()["detail"]
    # All else goes on.
    check(three, work(three, 6, "mixed"))
    old.stop()
    start(old, three)
    until_whole(three)
    until(lambda: goal(old).status_code == 201)
    # Versions are raised one at a time, and goals are taken before the last of them.
    until(lambda: new.health()["coordinator"]["table_version"] == TABLE_VERSION)

"""A mesh comes up again after any one file of an agent's data folder was lost or replaced by an older copy,
or `up` says within seconds which file it is and what to do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.e2e]

AGENTS = 3
UP_TIMEOUT_S = 90.0
# What `up` may take to say that it does not go on.
SAYS_WITHIN_S = 60.0
# No agent has this role: the tasks wait, and nothing of Docker is needed.
WAITING = {"title": "waits", "commands": ["true"], "required_role": "nobody"}


class LocalMesh:
    """A mesh of `chorusctl up` with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.folder = self.state / "chorus" / "contexts" / "local"
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")
        } | {
            "XDG_STATE_HOME": str(self.state),
            "CHORUS_ELECTION_HEARTBEAT": "200ms",
            "CHORUS_ELECTION_TIMEOUT": "2s",
            "CHORUS_MDNS_ENABLED": "false",
        }
        self.agents: list[dict[str, Any]] = []

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chorus.ctl", *arguments]
        with subprocess.Popen(
            command, env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                output, errors = process.communicate(timeout=UP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # Not killed: `up` stops the agents that it has started.
                process.send_signal(signal.SIGTERM)
                process.communicate()
                raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def up(self) -> subprocess.CompletedProcess[str]:
        done = self.ctl("up", "-n", str(AGENTS), "--detach", "--json")
        if done.returncode == 0:
            self.agents = json.loads(done.stdout)["agents"]
        else:
            # Agents that only a person can make a mesh of go on running.
            self.down()
        return done

    def down(self) -> None:
        self.ctl("down")

    def submit(self, agent: int = 0) -> str:
        answer = self._http(agent).post("/api/v1/tasks", json=WAITING)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def knows(self, task: str, agent: int) -> bool:
        """Whether an agent has a task, or has it as soon as its table has followed."""
        with self._http(agent) as http:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if http.get(f"/api/v1/tasks/{task}").status_code == 200:
                    return True
                time.sleep(0.1)
        return False

    def meshes(self) -> set[str]:
        return {str(self._http(agent).get("/api/v1/election").json()["mesh"]) for agent in range(AGENTS)}

    def _http(self, agent: int) -> httpx.Client:
        entry = self.agents[agent]
        token = Path(entry["token_file"]).read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=entry["api"], headers=headers, timeout=20, trust_env=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalMesh, Path, Path, list[str]]:
    """A stopped mesh, an older and its newest copy, and the tasks that the newest one knows."""
    folder = tmp_path_factory.mktemp("mesh")
    mesh = LocalMesh(folder)
    copies = []
    tasks: list[str] = []
    for name in ("older", "newest"):
        done = mesh.up()
        assert done.returncode == 0, done.stderr
        tasks += [mesh.submit() for _ in range(20)]
        mesh.down()
        copies.append(folder / name)
        shutil.copytree(mesh.state, copies[-1], symlinks=True)
    return mesh, copies[0], copies[1], tasks


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def outcome(mesh: LocalMesh, newest: Path, tasks: list[str], name: str, alter: Callable[[Path], None]) -> str:
    """What is wrong after `alter` of a file of agent-1; "" when the mesh came up, or said why not."""
    shutil.rmtree(mesh.state)
    shutil.copytree(newest, mesh.state, symlinks=True)
    alter(mesh.folder / "agent-1" / name)
    started = time.monotonic()
    try:
        try:
            done = mesh.up()
        except subprocess.TimeoutExpired:
            return "up does not end"
        took = time.monotonic() - started
        print(f"{name}: {done.returncode} after {took:.1f} s {done.stderr[-400:]}")
        if done.returncode != 0:
            said = Path(name).name in done.stderr or str(Path(name).parent) in done.stderr
            return "" if said and took < SAYS_WITHIN_S else f"{took:.0f} s: {done.stderr[-2000:]}"
        if len(meshes := mesh.meshes()) != 1:
            return f"more than one mesh: {meshes}"
        lost = [
            task for task in (tasks[0], tasks[-1]) for agent in range(AGENTS) if not mesh.knows(task, agent)
        ]
        if lost:
            return f"tasks were lost: {lost}"
        new = mesh.submit(agent=0)
        return "" if all(mesh.knows(new, agent) for agent in range(AGENTS)) else "a new task does not arrive"
    except (AssertionError, httpx.HTTPError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        mesh.down()


def test_a_lost_file(kept: tuple[LocalMesh, Path, Path, list[str]]) -> None:
    mesh, _, newest, tasks = kept
    agent = newest / mesh.folder.relative_to(mesh.state) / "agent-1"
    assert "core/raft.redb" in files_of(agent)
    wrong = {name: outcome(mesh, newest, tasks, name, Path.unlink) for name in files_of(agent)}
    wrong["(the folder)"] = outcome(mesh, newest, tasks, "", shutil.rmtree)
    assert {name: why for name, why in wrong.items() if why} == {}


def test_an_older_copy_of_a_file(kept: tuple[LocalMesh, Path, Path, list[str]]) -> None:
    mesh, older, newest, tasks = kept
    agent = older / mesh.folder.relative_to(mesh.state) / "agent-1"
    wrong = {}
    for name in files_of(agent):
        wrong[name] = outcome(
            mesh,
            newest,
            tasks,
            name,
            lambda path, name=name: shutil.copy2(agent / name, path),  # type: ignore[misc]
        )

    def whole(folder: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(agent, folder)

    wrong["(the folder)"] = outcome(mesh, newest, tasks, "", whole)
    assert {name: why for name, why in wrong.items() if why} == {}


def test_an_empty_file(kept: tuple[LocalMesh, Path, Path, list[str]]) -> None:
    mesh, _, newest, tasks = kept
    agent = newest / mesh.folder.relative_to(mesh.state) / "agent-1"
    wrong = {
        name: outcome(mesh, newest, tasks, name, lambda path: path.write_bytes(b"") and None)
        for name in files_of(agent)
    }
    assert {name: why for name, why in wrong.items() if why} == {}


def test_a_vote_file_and_the_table_lost_together(kept: tuple[LocalMesh, Path, Path, list[str]]) -> None:
    """Nothing in the folder tells that the identity has voted: the leader does."""
    mesh, _, newest, tasks = kept

    def both(vote_file: Path) -> None:
        vote_file.unlink()
        for path in vote_file.parent.parent.glob("table.sqlite*"):
            path.unlink()

    assert outcome(mesh, newest, tasks, "core/raft.redb", both) == ""
    assert len(list((mesh.folder / "agent-1" / "replaced").iterdir())) == 1


def test_too_few_votes_are_said_within_seconds(kept: tuple[LocalMesh, Path, Path, list[str]]) -> None:
    mesh, _, newest, _ = kept
    shutil.rmtree(mesh.state)
    shutil.copytree(newest, mesh.state, symlinks=True)
    for name in ("agent-1", "agent-2"):
        (mesh.folder / name / "core" / "raft.redb").unlink()
    started = time.monotonic()
    done = mesh.up()
    assert done.returncode != 0
    assert time.monotonic() - started < SAYS_WITHIN_S
    assert "1 of its 3 votes" in done.stderr
    assert "core/raft.redb" in done.stderr

"""The signed log of real agents: what it tells of a task's life, followed, and verified alive and at rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Agent, Mesh
from .test_run import until

pytestmark = pytest.mark.e2e


def entries(mesh: Mesh, agent: Agent, *words: str) -> list[dict[str, Any]]:
    done = mesh.ctl("log", "--agent", agent.agent_id, "-n", "1000", "--json", *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_tasks_life_is_in_the_logs_and_the_logs_are_genuine(mesh: Mesh) -> None:
    first = mesh.agents[0]
    begun = entries(mesh, first)
    assert [entry["type"] for entry in begun[:3]] == ["agent_started", "license_checked", "configuration"]
    assert [entry["seq"] for entry in begun] == list(range(len(begun)))
    assert first.token not in json.dumps(begun)
    types = {entry["type"] for agent in mesh.agents for entry in entries(mesh, agent)}
    assert {"peer_up", "leader_changed"} <= types

    with mesh.popen("log", "--agent", first.agent_id, "-f", "-n", "1", "--json") as follower:
        assert follower.stdout is not None
        # The last one there was: from here on it follows.
        seen = [json.loads(follower.stdout.readline())]
        mesh.ctl("run", "--", "true")
        # Who ran it tells of it; all three have what happened to them.
        until(lambda: any(entries(mesh, agent, "--type", "task_completed") for agent in mesh.agents))
        told = entries(mesh, first)
        while seen[-1]["seq"] < told[-1]["seq"]:
            seen.append(json.loads(follower.stdout.readline()))
        follower.terminate()
    assert seen == told[seen[0]["seq"] :]

    ran = [agent for agent in mesh.agents if entries(mesh, agent, "--type", "task_started")]
    assert len(ran) == 1
    life = [entry["type"] for entry in entries(mesh, ran[0])]
    assert life.index("task_started") < life.index("decision_published") < life.index("task_completed")
    submitted = [entry for agent in mesh.agents for entry in entries(mesh, agent, "--type", "task_submitted")]
    assert len(submitted) == 1

    for agent in mesh.agents:
        said = json.loads(mesh.ctl("log", "--agent", agent.agent_id, "--verify", "--json").stdout)
        assert (said["genuine"], said["key"]) == (True, agent.get("/api/v1/log").json()["key"])

    folders = [agent.data_dir for agent in mesh.agents]
    mesh.down()
    for folder in folders:
        said = json.loads(mesh.ctl("log", "--verify", "--dir", str(folder), "--json").stdout)
        assert said["genuine"] is True
    data = folders[0] / "core" / "log" / "data"
    forge(data)
    done = mesh.ctl("log", "--verify", "--dir", str(folders[0]), check=False)
    assert done.returncode == 1
    assert b"not genuine: tampered: entry 0 does not fit its hash" in done.stderr


def forge(data: Path) -> None:
    content = data.read_bytes()
    assert b'"agent_started"' in content
    data.write_bytes(content.replace(b'"agent_started"', b'"agent_begun__"', 1))

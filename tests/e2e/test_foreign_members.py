"""The Go and JavaScript members of examples/ have a task run; with another key they get nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import GENEROUS_S, Mesh, brought_up

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUILD_TIMEOUT_S = 900


def go_member(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if shutil.which("go") is None:
        pytest.skip("no Go")
    binary = tmp_path_factory.mktemp("go") / "go-member"
    command = ["go", "build", "-o", str(binary), "."]
    subprocess.run(command, cwd=EXAMPLES / "go-member", check=True, timeout=BUILD_TIMEOUT_S)
    return [str(binary)]


@pytest.fixture(scope="module", params=["go", "js"])
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a foreign member, built for real."""
    if request.param == "go":
        return go_member(tmp_path_factory)
    if shutil.which("npm") is None:
        pytest.skip("no Node.js")
    folder = tmp_path_factory.mktemp("js") / "js-member"
    shutil.copytree(EXAMPLES / "js-member", folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--no-fund", "--no-audit"]
    subprocess.run(command, cwd=folder, check=True, timeout=BUILD_TIMEOUT_S)
    return ["node", str(folder / "member.mjs")]


def test_a_task_is_published_and_its_completion_read(mesh: Mesh, member: list[str]) -> None:
    dash = "--" if member[0] == "node" else "-"
    options = [f"{dash}secret-file", mesh.cluster_secret_file, f"{dash}agent", mesh.agents[1].multiaddr]
    done = subprocess.run(
        [*member, *options, "--", "python3", "-c", "print(6*7)"], capture_output=True, timeout=GENEROUS_S
    )
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    # What it heard on its one connection, whichever agent ran the task.
    assert b"task_claim from" in done.stderr
    assert said["type"] == "task_complete"
    assert said["data"]["exit_code"] == 0
    task = mesh.agents[0].get(f"/api/v1/tasks/{said['data']['task_id']}").json()
    assert task["state"] == "completed"


ROLE = "chorus/role/reviewer"


@pytest.fixture
def with_reviewer(needs: None) -> Iterator[Mesh]:
    """Three agents, and one more of the role that none of them has."""
    for mesh in brought_up(3):
        more = {
            "CHORUS_AGENT_ID": "reviewer-1",
            "CHORUS_AGENT_ROLE": "reviewer",
            "CHORUS_CLUSTER_SECRET_FILE": mesh.cluster_secret_file,
            "CHORUS_LICENSE_ID": "dev-e2e",
            "CHORUS_BOOTSTRAP_PEERS": mesh.agents[0].multiaddr,
            "CHORUS_DATA_DIR": str(Path(mesh.environ["XDG_STATE_HOME"]) / "reviewer"),
            "CHORUS_P2P_PORT": "0",
            "CHORUS_API_PORT": "0",
            "CHORUS_HEALTH_PORT": "0",
        }
        command = [sys.executable, "-m", "chorus.agent"]
        agent = subprocess.Popen(command, env={**mesh.environ, **more}, stderr=subprocess.DEVNULL)
        try:
            ends = time.monotonic() + GENEROUS_S
            while "reviewer-1" not in ready(mesh):
                assert time.monotonic() < ends, "the reviewer is not ready"
                time.sleep(0.2)
            yield mesh
        finally:
            agent.terminate()
            agent.wait()


def ready(mesh: Mesh) -> set[str]:
    items = mesh.agents[0].get("/api/v1/agents").json()["items"]
    return {agent["agent_id"] for agent in items if agent["accepting"] and agent["role"]}


def test_a_role_topic_is_for_its_role_and_a_refusal_is_answered(
    with_reviewer: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mesh, command = with_reviewer, go_member(tmp_path_factory)
    # Gossip travels between those on a topic: it connects to one of them, which does not lead.
    reviewer = json.loads((Path(mesh.environ["XDG_STATE_HOME"]) / "reviewer" / "agent.json").read_text())
    address = next(one for one in reviewer["multiaddrs"] if one.startswith("/ip4/127."))
    options = ["-secret-file", mesh.cluster_secret_file, "-agent", address, "-topic", ROLE]
    for _ in range(3):
        done = subprocess.run([*command, *options, "--", "true"], capture_output=True, timeout=GENEROUS_S)
        assert done.returncode == 0, done.stderr.decode()
        task = mesh.agents[0].get(f"/api/v1/tasks/{json.loads(done.stdout)['data']['task_id']}").json()
        assert task["agent_id"] == "reviewer-1"
        assert task["required_role"] == "reviewer"
    for topic in ("chorus/tasks", ROLE):
        options[-1] = topic
        refused = ["-language", "a" * 100, "--", "true"]
        done = subprocess.run([*command, *options, *refused], capture_output=True, timeout=GENEROUS_S)
        assert done.returncode == 4, done.stderr.decode()
        said = json.loads(done.stdout)
        assert said["type"] == "task_decline"
        assert said["data"]["reason"].startswith("language: ")
        assert "aaa" not in said["data"]["reason"]


def test_another_key_does_not_connect(mesh: Mesh, member: list[str]) -> None:
    dash = "--" if member[0] == "node" else "-"
    options = [f"{dash}license", "dev-somebody-else", f"{dash}agent", mesh.agents[0].multiaddr]
    done = subprocess.run([*member, *options, "--", "true"], capture_output=True, timeout=GENEROUS_S)
    assert done.returncode == 2
    assert b"no connection" in done.stderr

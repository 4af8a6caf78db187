"""The Go and JavaScript members of examples/ have a task run; with another key they get nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import GENEROUS_S, Mesh

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUILD_TIMEOUT_S = 900


@pytest.fixture(scope="module", params=["go", "js"])
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a foreign member, built for real."""
    if request.param == "go":
        if shutil.which("go") is None:
            pytest.skip("no Go")
        binary = tmp_path_factory.mktemp("go") / "go-member"
        command = ["go", "build", "-o", str(binary), "."]
        subprocess.run(command, cwd=EXAMPLES / "go-member", check=True, timeout=BUILD_TIMEOUT_S)
        return [str(binary)]
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


def test_another_key_does_not_connect(mesh: Mesh, member: list[str]) -> None:
    dash = "--" if member[0] == "node" else "-"
    options = [f"{dash}license", "dev-somebody-else", f"{dash}agent", mesh.agents[0].multiaddr]
    done = subprocess.run([*member, *options, "--", "true"], capture_output=True, timeout=GENEROUS_S)
    assert done.returncode == 2
    assert b"no connection" in done.stderr

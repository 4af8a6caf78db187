"""`chorusctl run` over three real agents: exact streams, codes, cancellation, sources and artifacts."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import docker
import pytest

from .conftest import GENEROUS_S, Mesh

pytestmark = pytest.mark.e2e


def containers(task_id: str) -> list[Any]:
    """The sandboxes of a task that still exist. A warm one bears its task in its name alone."""
    return docker.from_env().api.containers(all=True, filters={"name": task_id})


def until(what: Any, timeout_s: float = GENEROUS_S) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return answer


def test_the_output_is_exactly_the_commands(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    done = mesh.ctl(
        "run", "--dir", str(tmp_path), "--language", "python", "--", "python3", "-c", "print(6*7)"
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"42\n", b"", 0)


def test_streams_are_kept_apart_and_binary_safe(mesh: Mesh) -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.stderr.buffer.write(b'\\xff\\x00err')"
    done = mesh.ctl("run", "--language", "python", "--", "python3", "-c", code)
    assert done.stdout == bytes(range(256))
    assert done.stderr == b"\xff\x00err"


@pytest.mark.parametrize("code", [1, 3, 77, 255])
def test_a_failing_code_comes_through(mesh: Mesh, code: int) -> None:
    assert mesh.ctl("run", "--", "sh", "-c", f"exit {code}", check=False).returncode == code


def test_a_timeout_is_124(mesh: Mesh) -> None:
    assert mesh.ctl("run", "--timeout", "1", "--", "sleep", "600", check=False).returncode == 124


def test_output_appears_while_it_runs(mesh: Mesh) -> None:
    # The command waits to be killed: whatever is read was there before its end.
    running = mesh.popen("run", "--", "sh", "-c", "echo first; sleep 600")
    assert running.stdout is not None
    assert running.stdout.readline() == b"first\n"
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(GENEROUS_S) == 130


def test_ctrl_c_cancels_and_the_sandbox_is_gone(mesh: Mesh) -> None:
    running = mesh.popen("run", "--title", "to be interrupted", "--", "sh", "-c", "echo up; sleep 600")
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    task = next(task for task in mesh.tasks() if task["title"] == "to be interrupted")
    until(lambda: containers(task["task_id"]))
    running.send_signal(signal.SIGINT)
    assert running.wait(GENEROUS_S) == 130
    until(lambda: not containers(task["task_id"]))
    assert next(t for t in mesh.tasks() if t["task_id"] == task["task_id"])["state"] == "cancelled"


def test_a_large_source_goes_in_and_its_artifact_comes_out_elsewhere(mesh: Mesh, tmp_path: Path) -> None:
    content = os.urandom(20_000_000)
    (tmp_path / "blob.bin").write_bytes(content)
    words = ["--dir", str(tmp_path), "--artifact", "out/*.bin", "--title", "large", "--"]
    mesh.ctl("run", *words, "sh", "-c", "mkdir out && cp blob.bin out/copy.bin && sha256sum blob.bin")
    task = next(task for task in mesh.tasks() if task["title"] == "large")
    for agent in mesh.agents:
        if agent.agent_id != task["agent_id"]:
            got = agent.get(f"/api/v1/tasks/{task['task_id']}/artifacts/out/copy.bin").content
            assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()
    into = tmp_path / "saved"
    mesh.ctl("artifacts", task["task_id"], "--output", str(into))
    assert (into / "out" / "copy.bin").read_bytes() == content


def test_a_run_saves_its_artifacts_and_names_the_others(mesh: Mesh, tmp_path: Path) -> None:
    """Very many of them, whose list travels as a blob and is read on every agent."""
    make = (
        "for i in $(seq 3000); do echo $i > out/$(printf %0100d $i); done; echo x > run.sh; chmod 711 run.sh"
    )
    words = [
        "--artifact",
        "{out,*.sh}",
        "--artifact",
        "*.xml",
        "--title",
        "many",
        "-o",
        str(tmp_path / "into"),
    ]
    done = mesh.ctl("run", *words, "--", "sh", "-c", f"mkdir out; {make}")
    said = done.stderr.decode()
    assert "not kept: *.xml: no file fits this pattern" in said
    assert "saved 3001 of 3001 artifacts" in said
    assert len(list((tmp_path / "into/out").iterdir())) == 3000
    assert (tmp_path / "into/run.sh").stat().st_mode & 0o777 == 0o711
    task = next(task for task in mesh.tasks() if task["title"] == "many")
    for agent in mesh.agents:
        shown = agent.get(f"/api/v1/tasks/{task['task_id']}").json()
        assert len(shown["result"]["artifacts"]) == 3001
        path = f"/api/v1/tasks/{task['task_id']}/artifacts/run.sh"
        got = agent.ask("GET", path, headers={"Range": "bytes=-1"})
        assert (got.status_code, got.content) == (206, b"\n")
    mesh.ctl("rm", task["task_id"])
    for agent in mesh.agents:
        gone = agent.get(f"/api/v1/tasks/{task['task_id']}/artifacts/run.sh")
        assert gone.status_code == 410, gone.text
    folders = [agent.data_dir / "tasks" / task["task_id"] for agent in mesh.agents]
    until(lambda: not any(folder.exists() for folder in folders))


def test_the_story_is_the_same_on_every_agent(mesh: Mesh) -> None:
    mesh.ctl("run", "--title", "told", "--", "sh", "-c", "echo one; echo two >&2")
    task = next(task for task in mesh.tasks() if task["title"] == "told")
    stories = [agent.get(f"/api/v1/tasks/{task['task_id']}/events").text for agent in mesh.agents]
    assert stories[0] == stories[1] == stories[2]
    ids = [line[4:] for line in stories[0].splitlines() if line.startswith("id: ")]
    assert ids[0] == "0-1"
    numbers = [int(ident.partition("-")[2]) for ident in ids if ident.startswith("1-")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "event: end" in stories[0]


def test_a_decision_is_read_elsewhere_and_is_genuine(mesh: Mesh, tmp_path: Path) -> None:
    mesh.ctl("run", "--title", "decided", "--", "true")
    task = next(task for task in mesh.tasks() if task["title"] == "decided")
    reader = next(agent for agent in mesh.agents if agent.agent_id != task["agent_id"])

    def listed() -> Any:
        return reader.get("/api/v1/decisions", task_id=task["task_id"]).json()["items"]

    decision = until(listed)[0]
    record = tmp_path / "record.json"
    record.write_bytes(reader.get(f"/api/v1/decisions/{decision['hash']}").content)
    for what in (str(record), decision["hash"], decision["address"]):
        said = json.loads(mesh.ctl("decision", "verify", what, "--json").stdout)
        assert (said["genuine"], said["hash"]) == (True, decision["hash"])
    record.write_bytes(record.read_bytes().replace(b'"decided"', b'"forged!"'))
    assert mesh.ctl("decision", "verify", str(record), check=False).returncode == 1


def test_a_secret_in_the_output_is_nowhere_afterwards(mesh: Mesh) -> None:
    # Only the sandbox puts it together, in two writes: the command itself stays whole and is no secret.
    first, second = "ghp_x7Kq2LmV9nRt", "4WzY8bCd1FgH6jPs3TuE5aQw"
    secret = first + second
    # A title is what people wrote: it is redacted on its way in.
    title = f"with {secret}"
    code = f"printf 'it is {first}'; sleep 0.3; printf '{second} indeed\\n' | tee /dev/stderr"
    done = mesh.ctl("run", "--title", title, "--project", "leaky", "--", "sh", "-c", code)
    assert done.stdout == b"it is [REDACTED:github-token] indeed\n"
    task = next(task for task in mesh.tasks() if task["project"] == "leaky")
    assert task["title"] == "with [REDACTED:github-token]"
    reader = next(agent for agent in mesh.agents if agent.agent_id != task["agent_id"])
    decision = until(lambda: reader.get("/api/v1/decisions", task_id=task["task_id"]).json()["items"])[0]
    answers = [reader.get(f"/api/v1/decisions/{decision['hash']}").content]
    for agent in mesh.agents:
        for path in ("", "/logs", "/events"):
            answers.append(agent.get(f"/api/v1/tasks/{task['task_id']}{path}").content)
    assert any(b"[REDACTED:github-token]" in answer for answer in answers)
    assert not any(secret.encode() in answer for answer in answers)
    state = Path(mesh.environ["XDG_STATE_HOME"])
    files = [path for path in state.rglob("*") if path.is_file()]
    # The agents' own logs and journals are among them.
    assert any(b"found on its way out" in path.read_bytes() for path in files)
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_up_again_brings_the_same_mesh_back(mesh: Mesh) -> None:
    before = mesh.agents[0].get("/api/v1/status").json()["mesh"]["id"]
    known = {task["task_id"] for task in mesh.tasks()}
    for agent in mesh.agents:
        os.kill(agent.pid, signal.SIGKILL)
    until(lambda: all(not Path(f"/proc/{agent.pid}").exists() for agent in mesh.agents))
    mesh.up()
    assert mesh.agents[0].get("/api/v1/status").json()["mesh"]["id"] == before
    assert known <= {task["task_id"] for task in mesh.tasks()}
    assert mesh.ctl("run", "--", "echo", "again").stdout == b"again\n"


def test_lists_speak_json(mesh: Mesh) -> None:
    for word in ("tasks", "peers", "members", "agents", "decisions"):
        assert set(json.loads(mesh.ctl(word, "--json").stdout)) >= {"items", "next"}
    assert len(json.loads(mesh.ctl("members", "--json").stdout)["items"]) == 3
    for word in ("status", "election", "doctor"):
        json.loads(mesh.ctl(word, "--json", check=False).stdout)


def test_without_a_mesh_it_says_what_to_do(tmp_path: Path, mesh: Mesh) -> None:
    environ = {**mesh.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [word for word in mesh.command("status") if word not in ("--context", mesh.name)]
    done = subprocess.run(command, env=environ, capture_output=True)
    assert done.returncode == 2
    assert b"chorusctl up" in done.stderr

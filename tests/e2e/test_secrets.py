"""Secrets in a task's fields and output reach no agent's disk, log or answer in clear."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import GENEROUS_S, Mesh

pytestmark = pytest.mark.e2e

TOKEN = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
PASSWORD = "violet-Gr33n-T3a!x9"


def until(what: Any) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + GENEROUS_S
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return answer


def ended(mesh: Mesh, task_id: str) -> dict[str, Any]:
    agent = mesh.agents[0]
    states = ("completed", "failed", "cancelled")
    task: dict[str, Any] = until(
        lambda: (found := agent.get(f"/api/v1/tasks/{task_id}").json())["state"] in states and found
    )
    return task


def kept(mesh: Mesh, secret: str) -> list[Path]:
    """The files of all agents that hold a secret, or its base64, in clear."""
    encoded = base64.b64encode(secret.encode()).rstrip(b"=")[:-1]
    files = [path for path in Path(mesh.environ["XDG_STATE_HOME"]).rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in files}
    return [path for path, content in contents.items() if secret.encode() in content or encoded in content]


def test_secrets_of_a_task_are_nowhere_in_clear(mesh: Mesh) -> None:
    agent = mesh.agents[0]
    answer = agent.post(
        "/api/v1/tasks",
        {
            "title": f"with {TOKEN}",
            "env": {"DB_PASSWORD": PASSWORD},
            # Each command alone shows nothing; what they print together is a token.
            "commands": [
                "printf '%s' \"$DB_PASSWORD\" | base64; env | grep DB_",
                f"printf {TOKEN[:12]}",
                f"printf '{TOKEN[12:25]}'\"{TOKEN[25:]}\"; echo",
                f"touch out-{TOKEN[:20]}'{TOKEN[20:]}' kept; exit 3",
            ],
            "artifacts": ["out-*", "kept"],
        },
    )
    assert answer.status_code == 201
    notices = answer.json()["notices"]
    assert [notice.partition(":")[0] for notice in notices] == ["env.DB_PASSWORD"]
    task = ended(mesh, answer.json()["task_id"])
    assert (task["env"], list(task["secrets"])) == ({}, ["DB_PASSWORD"])
    agent.post(f"/api/v1/tasks/{task['task_id']}/retry", {"reason": TOKEN})
    agent.post(f"/api/v1/tasks/{task['task_id']}/cancel", {"reason": f"because of {TOKEN}"})
    answers = [
        each.get(f"/api/v1/tasks/{task['task_id']}{path}").text
        for each in mesh.agents
        for path in ("", "/logs", "/events", "/artifacts")
    ]
    assert any("[REDACTED:task-secret]" in text for text in answers)
    assert not any(TOKEN in text or PASSWORD in text for text in answers)
    assert kept(mesh, TOKEN) == []
    assert kept(mesh, PASSWORD) == []


def test_names_that_hold_a_secret_are_refused_by_their_field(mesh: Mesh) -> None:
    for field, value in (
        ("project", TOKEN),
        ("language", TOKEN),
        ("submitted_by", TOKEN),
        ("workdir", TOKEN),
    ):
        answer = mesh.agents[1].post("/api/v1/tasks", {"title": "t", "commands": ["true"], field: value})
        assert answer.status_code == 422
        assert f"{field}: holds what looks like a secret (rule github-token)" in answer.json()["detail"]
        assert TOKEN not in answer.text
    address = f"ucxl://a:agent@p:t/*^/{TOKEN}"
    put = mesh.agents[1].ask("PUT", "/ucxi/v1/put", params={"address": address}, content=b"x")
    assert put.status_code == 422
    assert kept(mesh, TOKEN) == []


def test_a_secret_is_given_by_chorusctl(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".env").write_text("A=1")
    (tmp_path / "work" / "a").write_text("here")
    words = ["--secret", f"PW@{tmp_path / 'secret'}", "--dir", str(tmp_path / "work"), "--"]
    done = mesh.ctl("run", *words, "sh", "-c", 'ls -A; printf "<%s> %s" "$PW" "${#PW}"')
    assert done.stdout == f"a\n<[REDACTED:task-secret]> {len(PASSWORD)}".encode()
    assert b"left out .env" in done.stderr
    assert kept(mesh, PASSWORD) == []

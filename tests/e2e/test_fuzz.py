"""The whole HTTP API of a real agent under Schemathesis: no 5xx, and no answer that is not documented."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from chorus.api import ucxi_docs

from .conftest import Agent, Mesh, brought_up
from .test_decisions import ran

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

REQUIREMENTS = Path(__file__).parent / "fuzz-requirements.txt"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
HOOKS = Path(__file__).parent / "fuzz_hooks.py"
# Never ends by itself.
ENDLESS = "/ucxi/v1/subscribe"
EXAMPLES = 100
# What a task may take that is followed to its end, and all of it on a busy machine.
REQUEST_S, ALL_S = 120, 3000


@pytest.fixture(scope="session")
def schemathesis() -> Path:
    """The pinned tool in an environment of its own, made once for this list of requirements."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("CHORUS_CACHE") or Path.home() / ".cache" / "chorus")
    venv = cache / f"schemathesis-{pins}"
    ready = venv / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(venv / "bin" / "pip"), "install", "-q", "--no-deps", "-r", str(REQUIREMENTS)]
        subprocess.run(pip, check=True, timeout=600)
        ready.touch()
    return venv / "bin" / "schemathesis"


@pytest.fixture(scope="module")
def mesh(needs: None) -> Iterator[Mesh]:
    yield from brought_up(3, CHORUS_AGENT_ROLE="developer")


@contextlib.contextmanager
def ending(agent: Agent) -> Iterator[None]:
    """While the block runs, tasks that nobody can take are cancelled: who follows one comes to its end."""
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.5):
            for task in agent.get("/api/v1/tasks", state="announced", limit=500).json()["items"]:
                agent.ask("POST", f"/api/v1/tasks/{task['task_id']}/cancel")

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_no_5xx_and_no_undocumented_answer(mesh: Mesh, schemathesis: Path, tmp_path: Path) -> None:
    agent = mesh.agents[1]
    # The address of the examples, so that they get past "nothing is there".
    written = mesh.agents[0].ask(
        "PUT", f"/ucxi/v1/put?address={quote(ucxi_docs.ADDRESS)}", content=b"# Notes\n"
    )
    assert written.status_code == 201
    task = ran(mesh, "a task to ask about")
    (decision,) = agent.get("/api/v1/decisions", task_id=task["task_id"]).json()["items"]
    known = {"hash": decision["hash"], "task_id": task["task_id"], "task": task["task_id"]}
    with ending(mesh.agents[2]):
        done = subprocess.run(
            [
                str(schemathesis), "run", f"{agent.api}/openapi.json", "--no-color", "--checks", CHECKS,
                "--header", f"Authorization: Bearer {agent.token}", "--exclude-path", ENDLESS, "--seed", "1",
                "--max-examples", str(EXAMPLES), "--request-timeout", str(REQUEST_S),
            ],
            cwd=tmp_path, capture_output=True, text=True, timeout=ALL_S,
            env={
                **os.environ, "SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent),
                "FUZZ_KNOWN": json.dumps(known),
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:]
    document = agent.get("/openapi.json").json()
    operations = sum(len(methods) for methods in document["paths"].values())
    assert f"Selected: {operations - 1}/{operations}" in done.stdout
    assert f"Tested: {operations - 1}" in done.stdout
    assert agent.get("/api/v1/status").status_code == 200

"""A real model behind a real Ollama: the wire in full, whatever the model makes of its goal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.dev import ModelServer, Script, policy
from chorus.wire.ids import new_id
from goals.repositories import REPOSITORIES

from .conftest import Agent, brought_up
from .goal_runs import Runs, has_model
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

CACHE = Path(os.environ.get("CHORUS_CACHE") or Path.home() / ".cache" / "chorus")
FOLDER = CACHE / "model"
MODEL = "qwen2.5-coder:1.5b"
# Ten tokens of a prompt take a second on two cores.
PATIENCE_S = 1800
REPOSITORY = REPOSITORIES["leap_year"]


class Ollama:
    """A server with the model that `scripts/model.sh` has made ready."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        environ = {
            **os.environ,
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(FOLDER / "models"),
            "HOME": str(FOLDER),
        }
        with (FOLDER / "test.log").open("ab") as log:
            # A group of its own: the server's runner dies with it.
            self._process = subprocess.Popen(
                [str(FOLDER / "bin" / "ollama"), "serve"],
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self.answers)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/version", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Ends it and what it started, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def ollama() -> Iterator[Ollama]:
    if not (FOLDER / "created").exists():
        pytest.skip("there is no real model on this machine: scripts/model.sh makes it ready")
    server = Ollama()
    server.start()
    yield server
    server.kill()


@contextmanager
def agent_with(ollama: Ollama, **more: str) -> Iterator[Runs]:
    """One agent that asks it."""
    settings = {
        "CHORUS_AI_PROVIDER": "ollama",
        "OLLAMA_ENDPOINT": ollama.url,
        "OLLAMA_MODEL": MODEL,
        "CHORUS_AI_TIMEOUT": f"{PATIENCE_S}s",
        **more,
    }
    with (
        ModelServer(policy("oracle", [REPOSITORY.said.script])) as second,
        contextmanager(brought_up)(
            1, RESETDATA_BASE_URL=f"{second.url}/v1", RESETDATA_MODEL=second.model, **settings
        ) as mesh,
    ):
        until(lambda: has_model(mesh.agents[0], MODEL.split(":")[0]))
        yield Runs(mesh, second)


@pytest.fixture(scope="module")
def lone(ollama: Ollama, needs: None) -> Iterator[Runs]:
    with agent_with(ollama) as made:
        yield made


def first_reply(runs: Runs, task: dict[str, Any]) -> dict[str, Any]:
    task_id = runs.submit(task, REPOSITORY.archive())
    deadline = time.monotonic() + 2 * PATIENCE_S
    agent = runs.mesh.agents[0]
    while agent.get(f"/api/v1/tasks/{task_id}").json()["state"] not in ("completed", "failed"):
        assert time.monotonic() < deadline
        time.sleep(1)
    return runs.ended(task_id).of_kind("reply")[0]


def test_it_calls_a_tool_and_is_counted(lone: Runs) -> None:
    task = REPOSITORY.task(new_id(), budget={"steps": 1}, max_attempts=1, timeout_s=2 * PATIENCE_S)
    task["description"] = 'List the files. Call the function run with the command "ls" now.'
    reply = first_reply(lone, task)
    assert (reply["provider"], reply["model"]) == ("ollama", MODEL)
    assert [call["tool"] for call in reply["calls"]] == ["run"]
    assert 100 < reply["tokens_in"] < 3000
    assert reply["tokens_out"] > 0


def test_a_prompt_beyond_4096_tokens_is_taken_whole(lone: Runs) -> None:
    line = "Line {} says nothing about years, and is to be passed over."
    lines = "\n".join(line.format(number) for number in range(320))
    task = REPOSITORY.task(new_id(), budget={"steps": 1}, max_attempts=1, timeout_s=2 * PATIENCE_S)
    task["description"] = f"{lines}\n{REPOSITORY.said.goal}"
    assert first_reply(lone, task)["tokens_in"] > 4096


def test_it_dies_in_mid_answer_and_a_second_provider_goes_on(ollama: Ollama, needs: None) -> None:
    with agent_with(ollama, CHORUS_AI_FALLBACK="resetdata", RESETDATA_API_KEY="none") as runs:
        script = REPOSITORY.said.script.model_copy(update={"goal": REPOSITORY.said.goal})
        runs.model.policy = policy("oracle", [Script.model_validate(script.model_dump())])
        task_id = runs.submit(
            REPOSITORY.task(new_id(), max_attempts=3, budget={"steps": 40}), REPOSITORY.archive()
        )
        until(lambda: busy(ollama))
        ollama.kill()
        run = runs.ended(task_id)
        assert run.state == "completed"
        assert {record["provider"] for record in run.of_kind("reply")} >= {"resetdata"}
        ollama.start()


def test_an_agent_says_that_its_model_is_away(ollama: Ollama, lone: Runs) -> None:
    [agent] = lone.mesh.agents
    until(lambda: "ai:" not in ready(agent))
    ollama.kill()
    until(lambda: "ai:" in ready(agent))
    ollama.start()
    until(lambda: "ai:" not in ready(agent))


def ready(agent: Agent) -> str:
    """What the agent lacks to be ready."""
    return httpx.get(f"{agent.health}/ready", trust_env=False, timeout=30).text


def busy(ollama: Ollama) -> bool:
    """Whether the model is loaded: it answers, or is about to."""
    return bool(httpx.get(f"{ollama.url}/api/ps", trust_env=False, timeout=60).json().get("models"))

"""Goals on real agents whose model is the scripted one, in the test's own process."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from chorus.dev import Conversation, ModelServer, Policy, Reply, Script, policy
from chorus.wire.ids import new_id
from goals.repositories import REPOSITORIES, Repository, passes

from .conftest import Agent, Mesh, brought_up
from .test_run import until

ENDED = ("completed", "failed", "cancelled")
SCRIPTS = tuple(one.said.script.model_copy(update={"goal": one.said.goal}) for one in REPOSITORIES.values())


@dataclass
class Runs:
    """A mesh, and the model that all its agents ask."""

    mesh: Mesh
    model: ModelServer

    def play(self, name: str, *scripts: Script) -> None:
        """Has the model behave so from now on; without scripts it has those of the twenty repositories."""
        self.model.policy = policy(name, scripts or SCRIPTS)

    def submit(
        self, task: dict[str, Any], archive: bytes | None = None, *, at: int = 0, expect: int = 201
    ) -> str:
        """Submits a task to one of the agents; its id."""
        agent = self.mesh.agents[at % len(self.mesh.agents)]
        parts: dict[str, Any] = {"task": (None, json.dumps(task))}
        if archive is not None:
            parts["source"] = ("source", archive)
        answer = until(lambda: reached(lambda: agent.ask("POST", "/api/v1/tasks", files=parts)))
        assert answer.status_code == expect, answer.text
        return str(task["task_id"])

    def reach(
        self, repository: Repository, *, at: int = 0, files: Mapping[str, bytes] | None = None, **more: Any
    ) -> Run:
        """Submits the goal of a repository, with more files in it, and waits for its end."""
        task_id = self.submit(repository.task(new_id(), **more), repository.archive(files), at=at)
        return self.ended(task_id)

    def ask(self, goal: str, *, at: int = 0, **more: Any) -> Run:
        """Submits a goal without a source and waits for its end."""
        return self.ended(self.submit({"task_id": new_id(), "title": goal, **more}, at=at))

    def ended(self, task_id: str, *, at: int = 0) -> Run:
        """What one of the agents says of a task that has ended."""
        agent = self.mesh.agents[at]

        def look() -> Any:
            answer = reached(lambda: agent.get(f"/api/v1/tasks/{task_id}"))
            task = answer.json() if answer is not None else {}
            return task.get("state") in ENDED and task.get("result") and task

        return Run(agent, until(look))


def reached(ask: Callable[[], httpx.Response]) -> httpx.Response | None:
    """The answer to a request that may be repeated; None while the agent's API is away."""
    try:
        answer = ask()
    except httpx.TransportError:
        return None
    return None if answer.status_code == 503 else answer


@dataclass(frozen=True)
class Run:
    """A goal that has ended, as one agent tells it."""

    agent: Agent
    task: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.task["state"])

    @property
    def ended_by(self) -> str:
        return str(self.task["result"]["ended_by"])

    @property
    def report(self) -> dict[str, Any]:
        """The result's report of the goal."""
        report: dict[str, Any] = self.task["result"]["goal"]
        return report

    def artifact(self, name: str) -> bytes:
        """An artifact of the attempt that counted, whole and as the report says it is."""
        answer = self.agent.get(f"/api/v1/tasks/{self.task['task_id']}/artifacts/{name}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def patch(self) -> bytes:
        """The patch; b"" when nothing was changed."""
        told = self.report["patch"]
        if told is None:
            return b""
        content = self.artifact("patch.diff")
        assert hashlib.sha256(content).hexdigest() == told["sha256"]
        assert len(content) == told["size"]
        return content

    def transcript(self) -> list[dict[str, Any]]:
        """The records of the journal, whose numbers have no gap."""
        content = self.artifact("transcript.jsonl")
        assert hashlib.sha256(content).hexdigest() == self.report["transcript_sha256"]
        records = [json.loads(line) for line in content.splitlines()]
        assert [record["n"] for record in records] == list(range(1, len(records) + 1))
        return records

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind."""
        return [record for record in self.transcript() if record["kind"] == kind]


def applied(patch: bytes, repository: Repository, folder: Path) -> Path:
    """A copy of the repository with the patch applied by git, as its user does that."""
    shutil.copytree(repository.files, folder, symlinks=True)
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, cwd=folder, input=patch, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def mends(patch: bytes, repository: Repository, folder: Path) -> bool:
    """Whether the checks of the repository pass on this machine with the patch and nothing else."""
    return passes(repository, applied(patch, repository, folder))


def called_once(records: list[dict[str, Any]]) -> None:
    """No call was begun again after its outcome was known, and none has two outcomes."""
    known: set[tuple[int, int]] = set()
    for record in records:
        key = (record.get("step", 0), record.get("call", 0))
        if record["kind"] == "call":
            assert key not in known, record
        elif record["kind"] == "outcome":
            assert key not in known, record
            known.add(key)


class Gate:
    """A policy that holds a conversation's reply at one place of its script until the test says so.

    The place is counted by the model's own turns with a tool call, as the loop sends them.
    """

    def __init__(self, play: Policy, place: int, then: Any) -> None:
        self._play, self._place, self._then = play, place, then
        self._done = False

    def __call__(self, asked: Conversation) -> Reply:
        reached = sum(bool(message.calls) for message in asked.said) == self._place
        if asked.question == "step" and reached and not self._done:
            self._done = True
            self._then()
        return self._play(asked)


@contextmanager
def with_model(count: int, *scripts: Script, calls_tools: bool = True, **more: str) -> Iterator[Runs]:
    """So many agents whose model plays these scripts, or those of the twenty repositories."""
    with ModelServer(policy("oracle", scripts or SCRIPTS), calls_tools=calls_tools) as model:
        settings = {
            "CHORUS_AI_PROVIDER": "ollama",
            "OLLAMA_ENDPOINT": model.url,
            "OLLAMA_MODEL": model.model,
            **more,
        }
        with contextmanager(brought_up)(count, **settings) as mesh:
            until(lambda: all(has_model(agent, model.model) for agent in mesh.agents))
            yield Runs(mesh, model)


def has_model(agent: Agent, model: str) -> bool:
    """Whether the mesh knows of the agent's model, so that goals are given to it."""
    items = agent.get("/api/v1/agents").json()["items"]
    mine: dict[str, Any] = next((item for item in items if item["agent_id"] == agent.agent_id), {})
    return any(one["model"].split(":")[0] == model for one in mine.get("models") or ())

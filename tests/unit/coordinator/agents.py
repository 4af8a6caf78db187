"""Coordinators of several agents over the fake hub, with executors that do as they are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import orjson

from chorus.config import Assignment, MeshSettings
from chorus.config.load import load_settings
from chorus.config.masked import SecretData
from chorus.coordinator.service import Coordinator
from chorus.hub import Hub, Request
from chorus.process import Process
from chorus.process.logs import Logger
from chorus.table.entry_types import SINCE
from chorus.table.records import Attempt, Mesh, Task
from chorus.table.store import TableStore
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.ids import new_id

# Generous: nothing here waits for time to pass, only for other machines' work on this one.
DEADLINE_S = 30.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Executor:
    """Stands in for an agent's executor: takes or declines awards, says what it is told to."""

    MODELS: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.decline: str | None = None
        self.reachable = True
        self.claims = True
        self.accepting = True
        # What `mind` says of its models.
        self.models = self.MODELS
        self.model_reason = ""
        self.awards: list[tuple[str, int]] = []
        # Words for goals.
        self.messages: list[dict[str, Any]] = []

    async def start(self) -> None:
        self.hub = self.agent.mesh.hub(self.agent.name, "executor")
        await self.hub.offer("executor", self.serve, peers=True)

    async def serve(self, request: Request) -> dict[str, Any]:
        if request.method == "profile":
            said = {"accepting": self.accepting, "reason": "", "images": ["base"], "languages": []}
            return {**said, "models": self.models, "model_reason": self.model_reason}
        if request.method == "message":
            self.messages.append(request.head)
            return {"n": len(self.messages)}
        assert request.method == "award"
        task_id, attempt = request.head["task_id"], request.head["attempt"]
        self.awards.append((task_id, attempt))
        if not self.reachable:
            await asyncio.Event().wait()
        if self.decline is not None:
            await self.say("decline", task_id=task_id, attempt=attempt, reason=self.decline)
            return {"accepted": False, "reason": self.decline}
        if self.claims:
            claim = await self.say("claim", task_id=task_id, attempt=attempt)
            assert claim["accepted"], claim
        return {"accepted": True}

    async def say(self, type: str, **body: Any) -> dict[str, Any]:
        reply = await self.hub.call_service(
            "coordinator", "table.propose", {"type": type}, orjson.dumps(body)
        )
        return reply.head


class Agent:
    """One agent: its coordinator and its executor."""

    def __init__(self, mesh: FakeMesh, name: str, folder: Path, clock: Clock) -> None:
        self.mesh, self.name, self.folder, self.clock = mesh, name, folder, clock
        self.peer = mesh.agent(name).peer_id
        self.executor = Executor(self)
        self.coordinator: Coordinator | None = None
        self.assignment = Assignment(max_tasks=2)

    async def start(self) -> None:
        """Starts the coordinator, or starts it anew."""
        self.hub: Hub = self.mesh.hub(self.name, "coordinator")
        settings = replace(
            load_settings({"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": self.name}),
            peer_id=self.peer, version="0", assignment=self.assignment,
            data_dir=self.folder / self.name, run_dir=self.folder / self.name,
            task_lease_s=300.0, election_timeout_s=150.0, retention_s=86_400.0,
            cluster_secret=SecretData(b"of a test"),
        )  # fmt: skip
        process = self.process = Process("coordinator", settings, Logger(logging.getLogger("chorus.test")))
        store = TableStore(process.settings.paths.table_db)
        self.coordinator = Coordinator(process, self.hub, store, clock=self.clock, wall_ms=self.mesh.stamp)
        self.running = asyncio.create_task(self.coordinator.run())

    def assign(self, **fields: Any) -> None:
        """Another assignment counts from now on."""
        self.assignment = replace(self.assignment, **fields)
        self.process.assignments.take(self.assignment)

    async def stop(self) -> None:
        """The coordinator's process ends."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.hub.close()

    @property
    def parts(self) -> Coordinator:
        assert self.coordinator is not None
        return self.coordinator

    def task(self, task_id: str) -> Task | None:
        return self.parts.store.get(Task, task_id)

    def attempt(self, task_id: str, number: int) -> Attempt | None:
        return self.parts.store.get(Attempt, task_id, number)

    async def until(self, true: Callable[[], bool], what: str = "") -> None:
        """Waits until something holds; looks whenever the loop has had a turn."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not true():
                    if self.running.done():
                        await self.running
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"it did not come to that: {what}") from None

    async def takes_goals(self) -> None:
        """Waits until the table here takes tasks without commands."""

        def takes() -> bool:
            mesh = self.parts.store.get(Mesh, "mesh")
            return mesh is not None and mesh.version >= SINCE["goal"]

        await self.until(takes, "a table that takes goals")

    async def state(self, task_id: str, state: str) -> Task:
        """Waits until the task is in a state here."""

        def there() -> bool:
            task = self.task(task_id)
            return task is not None and task.state == state

        await self.until(there, f"{task_id} {state}")
        task = self.task(task_id)
        assert task is not None
        return task

    async def submit(self, **task: Any) -> dict[str, Any]:
        """Submits through this agent as its api process does."""
        body = {"title": "t", "commands": ["true"], **task}
        api = self.mesh.hub(self.name, "api")
        payload = orjson.dumps(body)
        reply = await api.call_service("coordinator", "table.submit", {}, payload, timeout=DEADLINE_S)
        return reply.head

    async def call(self, method: str, **head: Any) -> dict[str, Any]:
        """Another service of this agent's coordinator."""
        api = self.mesh.hub(self.name, "api")
        return (await api.call_service("coordinator", method, head, timeout=DEADLINE_S)).head


class World:
    """A mesh of agents; the first one leads."""

    def __init__(self, folder: Path, names: str = "abc") -> None:
        self.mesh = FakeMesh()
        self.clock = Clock()
        self.agents = {name: Agent(self.mesh, name, folder, self.clock) for name in names}

    def __getitem__(self, name: str) -> Agent:
        return self.agents[name]

    async def takes_goals(self) -> None:
        """Waits until the table takes tasks without commands, at every agent."""
        for agent in self.agents.values():
            await agent.takes_goals()

    @property
    def leader(self) -> Agent:
        return next(agent for agent in self.agents.values() if agent.peer == self.mesh.leader)


@asynccontextmanager
async def world(folder: Path, names: str = "abc", executors: bool = True) -> AsyncIterator[World]:
    """Agents that are all in the mesh and, with executors, ready for tasks."""
    made = World(folder, names)
    first, *others = made.agents.values()
    hub = made.mesh.hub(first.name, "election")
    await hub.raft_found(MeshSettings(), {"agent_id": first.name})
    for agent in others:
        added = await hub.raft_add(agent.peer, {"agent_id": agent.name, "request": agent.name})
        joiner = made.mesh.hub(agent.name, "election")
        await joiner.raft_adopt("", added.raft_id, added.founding)
        await hub.raft_promote(agent.peer)
    try:
        for agent in made.agents.values():
            if executors:
                await agent.executor.start()
            await agent.start()
        for agent in made.agents.values():
            if executors:
                await agent.until(lambda agent=agent: agent.parts.profile.accepting, "ready")  # type: ignore[misc]
        await first.until(lambda: first.parts.leading.active, "leading")
        yield made
    finally:
        for agent in made.agents.values():
            await agent.stop()


def fresh_id() -> str:
    """A task id."""
    return new_id()

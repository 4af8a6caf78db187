"""Agents of real cores and real coordinators in this process; their executors decide without a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from chorus import decisions
from chorus.config import Assignment, MeshSettings, Settings
from chorus.config.load import load_settings
from chorus.config.masked import SecretData
from chorus.coordinator.service import Coordinator
from chorus.core import Node
from chorus.hub import Hub, HubRefused, HubUnavailable, Request
from chorus.process import Process
from chorus.process.logs import Logger
from chorus.table.reader import TableReader
from chorus.table.store import TableStore
from chorus.wire.times import rfc3339

SECRET = b"a secret for tests, long enough"
# Generous: a loaded machine is no failure.
DEADLINE_S = 60.0
TIMING = MeshSettings(heartbeat_ms=200, election_timeout_ms=1_000, lease_ms=60_000)
NOW = rfc3339(1_764_000_000_000)


class Agent:
    """One agent: a core, a coordinator, and an executor that claims what it is awarded."""

    def __init__(self, name: str, folder: Path, role: str = "") -> None:
        self.name, self.role = name, role
        self.folder = folder / name
        self.node: Node | None = None
        self.coordinator: Coordinator | None = None
        self.accepting = True
        # What its `mind` says of its models.
        self.models: list[dict[str, Any]] = []
        self._running: asyncio.Task[None] | None = None
        self._hubs: list[Hub] = []

    @property
    def settings(self) -> Settings:
        return replace(
            load_settings({"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": self.name}),
            peer_id=self.hub.peer_id, version="0", data_dir=self.folder, run_dir=self.folder,
            assignment=Assignment(role=self.role, max_tasks=100),
            cluster_secret=SecretData(SECRET), retention_s=86_400.0,
        )  # fmt: skip

    @property
    def hub(self) -> Hub:
        assert self.node is not None
        return self.node.hub

    @property
    def table(self) -> TableReader:
        return TableReader(self.folder / "table.sqlite")

    async def start_node(self, others: list[Agent]) -> None:
        addresses = [address for other in others if other.node for address in other.node.addresses]
        self.node = Node(
            SECRET, data_dir=self.folder / "core", bootstrap=addresses, threads=1, agent_id=self.name,
            role=self.role or None,
        )  # fmt: skip
        await self.node.start()

    async def start(self) -> None:
        """Starts coordinator and executor, or starts them anew."""
        executor = await self.process_hub("executor")
        await executor.offer("executor", self._serve, peers=True)
        process = Process("coordinator", self.settings, Logger(logging.getLogger(f"test-{self.name}")))
        store = TableStore(self.folder / "table.sqlite")
        self.coordinator = Coordinator(process, await self.process_hub("coordinator"), store)
        self._running = asyncio.create_task(self.coordinator.run())
        await until(self._applies)

    async def _applies(self) -> bool:
        """Whether the coordinator answers and has a mesh."""
        with contextlib.suppress(HubUnavailable):
            return (await self.call("health"))["mesh"] is not None
        return False

    async def restart(self) -> None:
        """The agent's processes end and start again; its node stays."""
        await self._stop_processes()
        await self.start()

    async def stop(self) -> None:
        """The agent's processes end, its node last."""
        await self._stop_processes()
        if self.node is not None:
            await self.node.close()
            self.node = None

    async def _stop_processes(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        for hub in self._hubs:
            await hub.close()
        self._hubs.clear()

    async def process_hub(self, name: str) -> Hub:
        assert self.node is not None
        hub = await Hub.connect(self.node.hub_path, name, retry_for=DEADLINE_S)
        self._hubs.append(hub)
        return hub

    async def call(self, method: str, **head: Any) -> dict[str, Any]:
        """A service of this agent's coordinator, as a sibling asks it."""
        return (await self.hub.call_service("coordinator", method, head, timeout=DEADLINE_S)).head

    async def submit(self, **task: Any) -> str:
        """Submits a task, as this agent's api process does; its id."""
        payload = orjson.dumps(task)
        reply = await self.hub.call_service("coordinator", "table.submit", {}, payload, timeout=DEADLINE_S)
        return str(reply.head["task"]["task_id"])

    async def propose(self, type: str, **body: Any) -> dict[str, Any]:
        """An entry of this agent's."""
        payload = orjson.dumps(body)
        reply = await self.hub.call_service(
            "coordinator", "table.propose", {"type": type}, payload, timeout=DEADLINE_S
        )
        return reply.head

    async def _serve(self, request: Request) -> dict[str, Any]:
        if request.method == "profile":
            said = {"accepting": self.accepting, "reason": "", "images": ["base"], "languages": []}
            return {**said, "models": self.models, "model_reason": ""}
        if request.method == "award":
            claim = await self.propose(
                "claim", task_id=request.head["task_id"], attempt=request.head["attempt"]
            )
            return {"accepted": claim["accepted"], "reason": claim["reason"]}
        raise AssertionError(request.method)

    async def decide(self, task_id: str, attempt: int = 1, outcome: str = "completed", **record: Any) -> str:
        """Ends an attempt of this agent's and publishes its record; returns the record's hash."""
        row = self.table.task(task_id)
        assert row is not None
        done = await self.propose("result", task_id=task_id, attempt=attempt, outcome=outcome, exit_code=0)
        assert done["accepted"], done
        values: dict[str, Any] = {
            "kind": "task_result", "peer": self.hub.peer_id, "agent_id": self.name, "role": self.role,
            "project": row.task["project"], "task_id": task_id, "attempt": attempt, "mesh": "m",
            "title": row.task["title"], "summary": "done", "inputs": decisions.inputs(), "created_at": NOW,
            "decided": {"outcome": outcome, "reason": "", "exit_code": 0, "ended_by": "exit"},
        }  # fmt: skip
        plain = decisions.build(**{**values, **record})

        async def enter(type: str, entry: dict[str, Any]) -> None:
            said = await self.propose(type, **entry)
            assert said["accepted"], said

        encoded = await decisions.redact_and_sign(self.hub, plain)
        return await decisions.publish(self.hub, encoded, plain, enter=enter)


class Mesh:
    """The agents; the first one founded the mesh."""

    def __init__(self, agents: list[Agent]) -> None:
        self.agents = agents

    def __getitem__(self, name: str) -> Agent:
        return next(agent for agent in self.agents if agent.name == name)

    @property
    def leader(self) -> Agent:
        mesh = self.agents[0].table.mesh()
        assert mesh is not None
        return self[str(mesh.leader_agent_id)]

    async def task(self, **task: Any) -> tuple[Agent, str]:
        """A task, and the agent that has claimed it."""
        body = {"title": "t", "commands": ["true"], **task}
        task_id = await self.agents[0].submit(**body)

        def claimed() -> bool:
            row = self.agents[0].table.task(task_id)
            return row is not None and row.state == "claimed"

        await until(claimed)
        row = self.agents[0].table.task(task_id)
        assert row is not None
        agent = self[str(row.agent_id)]
        await until(lambda: (there := agent.table.task(task_id)) is not None and there.state == "claimed")
        return agent, task_id

    async def decided(self, **task: Any) -> tuple[Agent, str, str]:
        """Who decided on a task, the task, and the hash of the decision, which all agents list."""
        agent, task_id = await self.task(**task)
        name = await agent.decide(task_id)
        for other in self.agents:
            await until(lambda other=other: other.table.decision(name) is not None)  # type: ignore[misc]
        return agent, task_id, name


async def until(true: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            holds = true()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def mesh(folder: Path, names: str = "abc", roles: dict[str, str] | None = None) -> AsyncIterator[Mesh]:
    """Agents that are all in one mesh and ready for tasks."""
    agents = [Agent(name, folder, (roles or {}).get(name, "")) for name in names]
    try:
        for agent in agents:
            await agent.start_node([other for other in agents if other is not agent])
        first, *others = agents
        name = await first.hub.raft_found(TIMING, {"agent_id": first.name, "role": first.role})
        await until(lambda: _leads(first))
        for agent in others:
            await until(lambda agent=agent: _knows(first, agent))  # type: ignore[misc]
            added = await first.hub.raft_add(
                agent.hub.peer_id, {"agent_id": agent.name, "request": agent.name}
            )
            members = [(member.raft_id, member.peer) for member in (await first.hub.raft_status()).members]
            await agent.hub.raft_adopt(name, added.raft_id, added.founding, members)
            await until(lambda agent=agent: _promoted(first, agent))  # type: ignore[misc]
        for agent in agents:
            await agent.start()
        made = Mesh(agents)
        for agent in agents:
            await until(lambda agent=agent: _ready(first, agent))  # type: ignore[misc]
        yield made
    finally:
        for agent in agents:
            await agent.stop()


async def _leads(agent: Agent) -> bool:
    return (await agent.hub.raft_status()).role == "leader"


async def _promoted(first: Agent, agent: Agent) -> bool:
    # Refused until the joiner has been heard.
    with contextlib.suppress(HubRefused):
        await first.hub.raft_promote(agent.hub.peer_id, timeout=DEADLINE_S)
        return True
    return False


async def _knows(agent: Agent, other: Agent) -> bool:
    return other.hub.peer_id in {peer["peer"] for peer in (await agent.hub.net_state())["peers"]}


async def _ready(first: Agent, agent: Agent) -> bool:
    row = first.table.member(agent.hub.peer_id)
    return row is not None and row.accepting and row.role == agent.role

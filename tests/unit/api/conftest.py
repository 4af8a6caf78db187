"""An agent's HTTP surface over a fake hub and a table in memory, served on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.types import ASGIApp

from chorus.api.app import api_app, guarded, guarded_probes
from chorus.api.context import Context
from chorus.api.health import health_app
from chorus.api.observer import Observer
from chorus.api.service import _server, bind
from chorus.blobs import BlobStore
from chorus.config.load import load_settings
from chorus.config.masked import SecretText
from chorus.hub import ByteStream, HubInvalid, HubNotFound, HubUnavailable, Request
from chorus.process import Assignments
from chorus.table.held import Holder
from chorus.table.rows import (
    AttemptRow,
    FormerRow,
    MemberRow,
    MeshRow,
    Page,
    StateChange,
    TaskRow,
    TaskStory,
)
from chorus.testing.fake_hub import FakeHub, FakeMesh

TOKEN = "a-token-for-tests-only"
TASK_ID = "01J00000000000000000000001"
T0 = 1_700_000_000_000


def task_row(**changes: Any) -> TaskRow:
    row = TaskRow(
        task_id=TASK_ID, task={"title": "t", "commands": ["true"]}, state="announced", reason="", attempt=0,
        agent=None, agent_id=None, submitter="peer-a", submitted_by="a", vouched_by="peer-a",
        holders=("peer-a",),
        created_at=T0, claimed_at=None, started_at=None, finished_at=None, waiting_s=None, pulling_s=None,
        running_s=None, result=None, decision=None, lost=0,
    )  # fmt: skip
    return replace(row, **changes)


def attempt_row(number: int = 1, **changes: Any) -> AttemptRow:
    row = AttemptRow(
        task_id=TASK_ID, attempt=number, agent="peer-b", agent_id="b", state="running", reason="",
        awarded_at=T0, claimed_at=T0, started_at=T0, finished_at=None, image="i", pulling_s=0.0, result=None,
    )  # fmt: skip
    return replace(row, **changes)


@dataclass
class FakeHeld:
    """What the table says of holders."""

    table: FakeTable

    def holders(self, task_id: str, attempt: int | None = None) -> list[Holder]:
        return list(self.table.holders)

    def lost(self, task_id: str) -> list[str]:
        return list(self.table.lost)


@dataclass
class FakeTable:
    """The reader's answers, set by the test."""

    row: TaskRow | None = None
    attempt_rows: list[AttemptRow] = field(default_factory=list)
    changes: list[StateChange] = field(default_factory=list)
    # Who holds what attempts left, and what nobody holds.
    holders: list[Holder] = field(default_factory=lambda: [Holder("peer-b", "b", True)])
    lost: list[str] = field(default_factory=list)

    @property
    def held(self) -> FakeHeld:
        return FakeHeld(self)

    def another(self) -> FakeTable:
        return self

    def applied(self) -> int:
        return 7

    def mesh(self) -> MeshRow | None:
        return MeshRow("mesh-1", {}, "peer-a", "a", 1, T0, 1)

    def task(self, task_id: str) -> TaskRow | None:
        return self.row if self.row and self.row.task_id == task_id else None

    def tasks(self, *, cursor: str | None = None, **_: Any) -> Page[TaskRow]:
        if cursor is not None:
            int(cursor)
        return Page([self.row] if self.row else [], None)

    def attempts(self, task_id: str) -> list[AttemptRow]:
        return list(self.attempt_rows)

    def history(self, task_id: str) -> list[StateChange]:
        return list(self.changes)

    def story(self, task_id: str) -> TaskStory | None:
        row = self.task(task_id)
        return TaskStory(row, tuple(self.attempt_rows), tuple(self.changes)) if row else None

    def running_on(self, peer: str) -> list[AttemptRow]:
        return []

    def members(self) -> list[MemberRow]:
        return [
            MemberRow(f"peer-{n}", i, n, "", (), "general", 3, (), (), True, "", "v", True, True, 0, T0)
            for i, n in enumerate("ab", 1)
        ]

    def former_members(self) -> list[FormerRow]:
        return [FormerRow("peer-c", "b", "admin", 3, T0, T0 + 1000, "away for 600 s")]

    def agent_names(self) -> dict[str, str]:
        return {**{row.peer: row.agent_id for row in self.members()}, "peer-c": "b"}

    def totals(self) -> dict[str, int]:
        return {"tasks": 3, "decisions": 2, "versions": 1}

    def member(self, peer: str) -> MemberRow | None:
        return next((row for row in self.members() if row.peer == peer), None)

    def decisions(self, **_: Any) -> Page[Any]:
        return Page([], None)

    def decision(self, hash: str) -> None:
        return None

    def close(self) -> None:
        pass


@dataclass
class Executor:
    """Serves `output` for agent b as an executor would, from events the test appends."""

    events: list[dict[str, Any]] = field(default_factory=list)
    stdout: bytes = b""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    away: bool = False
    # Whether it sends the part of an artifact that is asked for, or all that it has.
    honest: bool = True

    def add(self, event: str, data: dict[str, Any], attempt: int = 1) -> None:
        self.events.append({"id": f"{attempt}-{len(self.events) + 1}", "event": event, "data": data})
        self.changed.set()

    def finish(self) -> None:
        self.over = True
        self.changed.set()

    async def serve(self, request: Request) -> dict[str, Any]:
        raise HubNotFound(request.method)

    async def stream(self, request: Request, stream: ByteStream) -> None:
        if self.away:
            raise HubUnavailable("the agent is away")
        if request.method != "events":
            start, length = request.head.get("offset") or 0, request.head.get("length")
            ask_all = not self.honest or length is None
            await stream.write(self.stdout if ask_all else self.stdout[start : start + length])
            return
        n = int(request.head["after"])
        while True:
            for event in self.events[n:]:
                await stream.write(orjson.dumps(event) + b"\n")
            n = len(self.events)
            if self.over:
                ended = next((e["data"].get("state") for e in self.events if e["event"] == "end"), None)
                await stream.write(orjson.dumps({"over": {"events": n, "ended": ended}}) + b"\n")
                return
            self.changed.clear()
            await self.changed.wait()


@dataclass
class Surface:
    """Everything a test of the surface touches."""

    api: httpx.AsyncClient
    probes: httpx.AsyncClient
    context: Context
    table: FakeTable
    mesh: FakeMesh
    hub: FakeHub
    executor: Executor
    observer: Observer
    submitted: list[dict[str, Any]]
    # The API behind its guard, without a server.
    app: ASGIApp

    def wake(self) -> None:
        """As the coordinator's news would."""
        self.context.changes._wake([TASK_ID])


@pytest.fixture
def more_environ() -> dict[str, str]:
    """Settings of a test's own."""
    return {}


@pytest.fixture
async def surface(tmp_path: Path, more_environ: dict[str, str]) -> AsyncIterator[Surface]:
    environ = {"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": "a", "CHORUS_DATA_DIR": str(tmp_path / "d")}
    environ["CHORUS_AI_PROVIDER"] = "none"
    environ |= more_environ
    settings = replace(
        load_settings(environ), api_token=SecretText(TOKEN), peer_id="peer-a", version="0", run_dir=tmp_path
    )
    mesh = FakeMesh()
    hub, remote = mesh.hub("a", "api"), mesh.hub("b", "executor")
    mesh.found("a", None, "b")
    executor = Executor()
    await remote.offer("output", executor.serve, peers=True, streams=executor.stream)
    submitted: list[dict[str, Any]] = []

    async def coordinator(request: Request) -> dict[str, Any]:
        if request.method == "table.submit":
            task = orjson.loads(request.payload)
            submitted.append({**request.head, "task": task})
            if task["depends_on"]:
                raise HubInvalid("depends_on: the mesh knows no such task")
            return {"task": {"task_id": task["task_id"]}, "created": True, "replicas": 1}
        return {"ok": True, "detail": "fine", "cancelled": True}

    for name in ("node", "election", "coordinator", "executor"):
        await mesh.hub("a", name).offer(name, coordinator)
    table = FakeTable()
    context = Context(
        settings,
        Assignments(settings.assignment),
        hub,
        table,
        BlobStore(tmp_path / "blobs", settings.blobs_bytes),
    )  # type: ignore[arg-type]
    observer = Observer(context)
    servers, tasks, clients = [], [], []
    api = guarded(api_app(context), context)
    for app in (api, guarded_probes(health_app(observer))):
        listener = await bind("127.0.0.1", 0)
        server = _server(app)
        servers.append(server)
        tasks.append(asyncio.create_task(server.serve(sockets=[listener])))
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        clients.append(httpx.AsyncClient(base_url=base, timeout=20, trust_env=False))
    clients[0].headers["Authorization"] = f"Bearer {TOKEN}"
    yield Surface(clients[0], clients[1], context, table, mesh, hub, executor, observer, submitted, api)
    context.stopping.set()
    for client in clients:
        await client.aclose()
    for server in servers:
        server.stop()
    await asyncio.gather(*tasks)

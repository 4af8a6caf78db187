"""An executor with real sandboxes in a world in memory: fake hub, real table, a tiny coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import types
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from chorus.config import MeshSettings, Settings
from chorus.config.load import load_settings
from chorus.executor.redaction import Sentinel
from chorus.executor.service import Executor
from chorus.hub import HubRefused, Reply, Request
from chorus.process import Assignments
from chorus.process.logs import Logger
from chorus.process.runner import Health
from chorus.table.entries import Entry
from chorus.table.entry_types import SINCE
from chorus.table.reader import TableReader
from chorus.table.rows import TaskRow
from chorus.table.store import TableStore
from chorus.telemetry.operations import Operations
from chorus.testing.fake_hub import FakeHub, FakeMesh
from chorus.wire.ids import new_id
from chorus.wire.task import parse_task

# Its containers bear its name, and another run of the tests may use the same daemon.
AGENT = f"worker-{uuid.uuid4().hex[:8]}"
# Generous: other work may share the machine.
DEADLINE_S = 300.0


def stand_in_core(monkeypatch: Any) -> None:
    """Encoding and signatures that only look like the core's, where the extension is not built."""
    with contextlib.suppress(ImportError):
        from chorus.core import canonical_json, verify_json  # noqa: F401

        return
    core = types.ModuleType("chorus.core")
    core.canonical_json = lambda data: orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)  # type: ignore[attr-defined]
    core.verify_json = lambda data, peer: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chorus.core", core)


class FakeProcess:
    """What the executor needs of `chorus.process.Process`."""

    def __init__(self, settings: Settings, hub: FakeHub) -> None:
        self.name = "executor"
        self.settings = settings
        self.assignments = Assignments(settings.assignment)
        self.hub = hub
        self.log = Logger(logging.getLogger("test-executor"))
        self.stopping = asyncio.Event()
        self.health = Health()
        self.operations = Operations(False)

    async def offer(self, methods: Mapping[str, Any], *, peers: bool = False, streams: Any = None) -> None:
        async def serve(request: Request) -> Any:
            return await methods[request.method](request)

        await self.hub.offer("executor", serve, peers=peers, streams=streams)


class World:
    """One agent that leads itself."""

    def __init__(self, data: Path, image: str, docker_host: str | None = None, lease_s: float = 30.0) -> None:
        self.mesh = FakeMesh()
        self.mesh.found(AGENT, MeshSettings(lease_ms=round(lease_s * 1000)))
        self.coordinator = self.mesh.hub(AGENT, "coordinator")
        self.client = self.mesh.hub(AGENT, "api")
        self.peer = self.coordinator.peer_id
        # What goals were said to have written to.
        self.touched: list[str] = []
        loaded = load_settings(
            {
                "CHORUS_LICENSE_ID": "dev-test",
                "CHORUS_AGENT_ID": AGENT,
                "CHORUS_DATA_DIR": str(data),
                "CHORUS_RUN_DIR": str(data / "run"),
            }
        )
        box = replace(loaded.sandbox, images={"base": image, "python": image}, warm=0)
        self.settings = replace(
            loaded,
            peer_id=self.peer,
            sandbox=box,
            # An agent's own lease counts for nothing in a mesh.
            task_lease_s=300.0,
            docker_host=docker_host,
        )
        data.mkdir(parents=True, exist_ok=True)
        self.store = TableStore(self.settings.paths.table_db)
        self.table = TableReader(self.settings.paths.table_db)
        self.renewals = 0
        self.refuse_renewals = False
        self.changed = asyncio.Event()
        self.process: FakeProcess | None = None
        self.executor: Executor | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self, redactor: Any = Sentinel, *, after_hang: bool = False) -> Executor:
        """Starts coordinator and executor; returns when the executor knows its backend."""
        await self.coordinator.offer("coordinator", self._serve, peers=True)
        await self.apply()
        self.process = FakeProcess(self.settings, self.mesh.hub(AGENT, "executor"))
        self.executor = Executor(self.process, redactor, after_hang=after_hang)  # type: ignore[arg-type]
        # The stamps of this mesh are not of today.
        self.executor.retention._wall_ms = lambda: 0
        self._running = asyncio.create_task(self.executor.run())
        async with asyncio.timeout(DEADLINE_S):
            await self.executor.watch.known.wait()
        return self.executor

    async def stop(self) -> None:
        """An orderly stop."""
        if self.process and self._running:
            self.process.stopping.set()
            async with asyncio.timeout(DEADLINE_S):
                await self._running
            await self.process.hub.close()
        self._running = None

    async def crash(self) -> None:
        """What kill -9 leaves: sessions cut, nothing said."""
        assert self.executor
        assert self.process
        assert self._running
        await self.process.hub.close()
        for attempt in self.executor.desk.attempts.values():
            assert attempt._runner
            attempt._runner._sandbox.session.close()  # type: ignore[attr-defined]
        for task in [self._running, *self.executor.desk._running.values()]:
            task.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def submit(self, voucher: FakeHub | None = None, **fields: Any) -> str:
        """Submits a task, for which this agent vouches if no other coordinator is named."""
        task = parse_task({"title": "a task", **fields})
        if task.is_goal:
            await self.take_goals()
        task_id = new_id()
        holders = [self.peer]
        submitted = {
            "task_id": task_id,
            "task": {**task.body(), "task_id": task_id},
            "submitter": self.peer,
            "vouched_by": (voucher or self.coordinator).peer_id,
            "holders": holders,
        }
        await (voucher or self.coordinator).propose("goal" if task.is_goal else "submit", submitted)
        await self.apply()
        return task_id

    async def take_goals(self) -> None:
        """Raises the table to the version that takes goals."""
        mesh = self.table.mesh()
        assert mesh is not None
        if mesh.version < SINCE["goal"]:
            await self.propose("member", {"agent_id": AGENT, "table_version": SINCE["goal"]})
        for version in range(mesh.version + 1, SINCE["goal"] + 1):
            await self.propose("table_version", {"version": version})

    async def award(self, task_id: str) -> dict[str, Any]:
        """Awards the next attempt, and asks the executor."""
        row = self.row(task_id)
        index = await self.propose(
            "award", {"task_id": task_id, "attempt": row.attempt + 1, "agent": self.peer}
        )
        head = {"task_id": task_id, "attempt": row.attempt + 1, "index": index}
        return (await self.coordinator.request(self.peer, "executor", "award", head)).head

    async def run(self, **fields: Any) -> TaskRow:
        """A task to its end."""
        task_id = await self.submit(**fields)
        answer = await self.award(task_id)
        assert answer["accepted"], answer
        return await self.until(task_id, lambda row: not row.open)

    async def until(self, task_id: str, done: Any) -> TaskRow:
        """Waits until the table says so."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self.changed.clear()
                row = self.row(task_id)
                if done(row):
                    return row
                await self.changed.wait()

    def row(self, task_id: str) -> TaskRow:
        """The task now."""
        row = self.table.task(task_id)
        assert row is not None
        return row

    async def events(self, task_id: str, attempt: int = 1, after: int = 0) -> list[dict[str, Any]]:
        """An attempt's events to their end."""
        head = {"task_id": task_id, "attempt": attempt, "after": after, "follow": True}
        async with await self.client.open_stream("output", "events", head) as stream:
            data = b"".join([chunk async for chunk in stream])
        told = [orjson.loads(line) for line in data.splitlines()]
        if told and "over" in told[-1]:
            over = told.pop()["over"]
            assert not told or told[-1]["id"] == f"{attempt}-{over['events']}"
        return told

    async def logs(self, task_id: str, which: str = "stdout", attempt: int = 1) -> bytes:
        """An attempt's raw output."""
        head = {"task_id": task_id, "attempt": attempt, "stream": which, "follow": False}
        async with await self.client.open_stream("output", "logs", head) as stream:
            return b"".join([chunk async for chunk in stream])

    async def propose(self, type: str, body: Any, entry_id: str | None = None) -> int:
        """Commits and applies an entry."""
        proposed = await self.coordinator.propose(type, body, entry_id=entry_id)
        await self.apply()
        return proposed.index

    async def apply(self) -> None:
        """Applies what is committed and tells the others."""
        entries = [
            Entry(
                index=entry.head["index"],
                stamp_ms=entry.head["stamp"],
                type=entry.head["type"],
                id=entry.head["id"],
                author=entry.head["author"],
                seen=entry.head["seen"],
                body=orjson.loads(entry.payload),
            )
            for entry in self.mesh.entries[self.store.applied :]
        ]
        outcomes = self.store.apply_batch(entries)
        tasks = [task for outcome in outcomes for task in outcome.tasks]
        said = {"applied": self.store.applied, "tasks": tasks, "members": False, "leader": False}
        await self.coordinator.publish_local("local/table", said)
        self.changed.set()

    async def _serve(self, request: Request) -> Reply | dict[str, Any]:
        match request.method:
            case "table.propose":
                head = request.head
                index = await self.propose(head["type"], orjson.loads(request.payload), head.get("id"))
                entry = self.mesh.entries[index - 1]
                accepted, reason = self.table.outcome(entry.head["id"]) or (True, "")
                return {"index": index, "accepted": accepted, "reason": reason}
            case "renew":
                self.renewals += 1
                if self.refuse_renewals:
                    raise HubRefused("superseded: that attempt is not under way")
                return {}
            case "hmmm.progress":
                self.touched += request.head["paths"]
                return {}
            case _:
                return {}


async def eventually(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Waits for what nobody tells of."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

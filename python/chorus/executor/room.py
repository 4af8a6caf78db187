"""What the executor's parts share: settings, hub, table, stores, and the work that outlives an attempt."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from chorus.blobs import BlobStore
from chorus.config import Settings
from chorus.executor.backend import Limits
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.earlier import Earlier
from chorus.executor.goal.model_rest import ModelRest
from chorus.executor.goal.session_service import Goals
from chorus.executor.image_store import ImageStore
from chorus.executor.journal import Journal
from chorus.executor.outbox import Item, Outbox
from chorus.executor.redaction import RedactorFactory
from chorus.hub import Hub, HubError, HubNoMesh
from chorus.process import Assignments
from chorus.process.logs import Logger
from chorus.table.reader import TableReader
from chorus.telemetry.operations import Operation, Operations
from chorus.wire.messages import COORDINATION, reports_topic
from chorus.wire.task import TaskSubmission
from chorus.wire.times import rfc3339


def _nothing(*_: Any) -> None:
    """Until the service has set a callback."""


@dataclass
class Room:
    """One per process."""

    settings: Settings
    assignments: Assignments
    hub: Hub
    table: TableReader
    blobs: BlobStore
    outbox: Outbox
    backend: DockerBackend
    images: ImageStore
    ceiling: Limits
    redactor: RedactorFactory
    log: Logger
    publish: Callable[[Item, Journal | None], None] = _nothing
    operations: Operations = field(default_factory=Operations)
    earlier: Earlier = field(init=False)
    backend_lost: Callable[[str], None] = _nothing
    sampled: Callable[[], None] = _nothing
    # Those that something will still be written to, by (task, attempt).
    journals: dict[tuple[str, int], Journal] = field(default_factory=dict)
    # Goals that their loop may ask for now.
    goals: Goals = field(default_factory=dict)
    model_rest: ModelRest = field(default_factory=ModelRest)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.earlier = Earlier(self.hub)

    @property
    def lease_s(self) -> float:
        """The mesh's lease, whatever this agent's own settings say. Raises HubNoMesh before there is one."""
        mesh = self.table.mesh()
        if mesh is None:
            raise HubNoMesh("this agent is in no mesh yet")
        return mesh.settings.lease_s

    def operation(self, task_id: str, attempt: int) -> Operation:
        """What BACKBEAT follows of an attempt."""
        return self.operations.of("task", f"{task_id}:{attempt}")

    async def tell(self, type: str, data: dict[str, Any]) -> None:
        """How an attempt ended, on the topic of coordination and to whom this agent reports: news only."""
        topics = [COORDINATION]
        if reports_to := self.assignments.current.reports_to:
            topics.append(reports_topic(reports_to))
        for topic in topics:
            with contextlib.suppress(HubError):
                await self.hub.publish(topic, type, data)

    def now(self) -> str:
        """The time as the API writes it."""
        return rfc3339(time.time_ns() // 1_000_000)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that nobody waits for; its errors are logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("work in the background failed", error=str(error), kind=type(error).__name__)

    async def settle(self, timeout_s: float) -> None:
        """Waits for spawned work, at most so long."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)


def limits_for(task: TaskSubmission, ceiling: Limits) -> Limits:
    """What the task asks for, cut to what this agent allows."""
    asked = task.resources
    return Limits(
        cpus=min(asked.cpus, ceiling.cpus),
        memory_bytes=min(asked.memory_mb * 1024 * 1024, ceiling.memory_bytes),
        pids=min(asked.pids, ceiling.pids),
        disk_bytes=min(asked.disk_mb * 1024 * 1024, ceiling.disk_bytes),
    )

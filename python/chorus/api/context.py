"""What the routes of the api process share: settings, hub, table, blobs, and news of the table's changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar

from fastapi import Depends
from starlette.requests import Request

from chorus.api.problems import Problem
from chorus.api.ucxi_room import Room
from chorus.api.ucxi_text import Texts
from chorus.archives.checked import CheckedArchives
from chorus.blobs import BlobStore
from chorus.config import Settings
from chorus.core import RoleKeys
from chorus.hub import Hub, HubError, Message, guard
from chorus.process import Assignments
from chorus.table.reader import TableReader
from chorus.table.rows import TaskRow

T = TypeVar("T")

TABLE_TOPIC: Final = "local/table"
# News of discussions, by the id of their session.
HMMM_TOPIC: Final = "local/hmmm"
# What to watch instead of a task's id for new versions at UCXL addresses.
UCXL: Final = "ucxl"
# The same for any change of the table.
TABLE: Final = "table"
# News of the table may be lost (a gap, a restarted coordinator); whoever waits looks again after this.
LOOK_AGAIN_S: Final = 2.0
# A leader that is there says within milliseconds how far the mesh is. One that does not answer in this time
# is left alone for the other.
CATCH_UP_S: Final = 1.0
CATCH_UP_PAUSE_S: Final = 2.0


class Changes:
    """Wakes those who wait for a task or a discussion to change; fed from the coordinator's topics."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def follow(self, hub: Hub) -> None:
        """Runs until cancelled."""
        async with hub.subscribe(TABLE_TOPIC, HMMM_TOPIC) as messages:
            await guard.each(messages, self._hear, "event")

    def _hear(self, message: Message) -> None:
        data = message.data if isinstance(message.data, dict) else {}
        if message.gap:
            self._wake(list(self._waiting))
        tasks = data.get("tasks")
        self._wake([str(task) for task in tasks] if isinstance(tasks, list) else [])
        sessions = data.get("sessions")
        self._wake([str(session) for session in sessions] if isinstance(sessions, list) else [])
        if data.get("versions"):
            self._wake([UCXL])
        if message.topic == TABLE_TOPIC:
            self._wake([TABLE])

    def watch(self, task_id: str) -> Watch:
        """Registers interest in a task or a discussion, by its id; use as a context manager."""
        return Watch(self._waiting, task_id)

    def _wake(self, tasks: list[str]) -> None:
        for task_id in tasks:
            for event in self._waiting.get(task_id, ()):
                event.set()


class Watch:
    """Interest in one task: `changed` returns after each change since the last look."""

    def __init__(self, waiting: dict[str, set[asyncio.Event]], task_id: str) -> None:
        self._waiting = waiting
        self._task_id = task_id
        self._event = asyncio.Event()

    async def changed(self, timeout: float = LOOK_AGAIN_S) -> None:
        """Returns when the task has changed, or it is time to look again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()

    def __enter__(self) -> Watch:
        self._waiting.setdefault(self._task_id, set()).add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        events = self._waiting.get(self._task_id)
        if events is not None:
            events.discard(self._event)
            if not events:
                del self._waiting[self._task_id]


@dataclass(slots=True)
class Context:
    """One agent, as its HTTP surface sees it."""

    settings: Settings
    assignments: Assignments
    hub: Hub
    table: TableReader
    blobs: BlobStore
    changes: Changes = field(default_factory=Changes)
    room: Room = field(default_factory=Room)
    texts: Texts = field(default_factory=Texts)
    archives: CheckedArchives = field(default_factory=CheckedArchives)
    # Set when the process is asked to stop: streams end, so that connections can close.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _role_keys: RoleKeys | None = None
    _role_keys_of: str = ""
    _lister: TableReader | None = None
    _listing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _alone_until: float = 0.0

    async def catch_up(self) -> None:
        """Returns when the table has all that any agent acknowledged before the call, or when that cannot be
        had now: without a leader reading goes on.
        """
        if time.monotonic() < self._alone_until:
            return
        try:
            await self.hub.call_service("coordinator", "table.reach", timeout=CATCH_UP_S)
        except HubError:
            self._alone_until = time.monotonic() + CATCH_UP_PAUSE_S

    async def listed(self, read: Callable[[TableReader], T]) -> T:
        """What `read` makes of the table, beside the loop: for lists, which may have much to go through.

        One at a time, so that many who ask at once hold no more than one page in memory.
        """
        async with self._listing:
            if self._lister is None:
                self._lister = self.table.another()
            return await asyncio.to_thread(read, self._lister)

    async def task(self, task_id: str, *, newest: bool = False) -> TaskRow:
        """The task, or the 404 that says so; with `newest`, as the mesh has it by now."""
        row = self.table.task(task_id)
        if row is None or (newest and row.open):
            await self.catch_up()
            row = self.table.task(task_id)
        if row is None:
            raise Problem(
                404, f"no task {task_id} is known in this mesh; GET /api/v1/tasks lists the known ones"
            )
        return row

    def role_keys(self) -> RoleKeys:
        """The keys of the roles that this agent holds, as its core has them."""
        role = self.assignments.current.role
        if self._role_keys is None or self._role_keys_of != role:
            settings, self._role_keys_of = self.settings, role
            self._role_keys = RoleKeys(
                settings.cluster_secret.get_secret_value(),
                role or None,
                file=settings.role_keys_file,
                grants=list(settings.role_grants),
            )
        return self._role_keys

    def leader_id(self) -> str | None:
        """The agent id of the mesh's leader as the table has it."""
        mesh = self.table.mesh()
        return None if mesh is None else mesh.leader_agent_id


async def _context(request: Request) -> Context:
    # A dependency that is not a coroutine would be called in a thread, for each request.
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


Here = Annotated[Context, Depends(_context)]

"""Removes what tasks that have ended left on this agent's disk: after CHORUS_RETENTION, or when told by hand.

Decision records stay: they are moved aside first. A task's folder goes at once, by a rename, and then its
bytes: a kill in between leaves nothing that is half there, and the rest to the next look.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from chorus.executor.journal import RECORD_FILE, record_aside
from chorus.executor.room import Room
from chorus.hub import HubError, Message, guard
from chorus.table.reader import TableReader
from chorus.table.rows import TaskEnd
from chorus.wire.ids import is_id, new_id
from chorus.wire.times import rfc3339

SWEEP_FIRST_S: Final = 60.0
SWEEP_S: Final = 600.0
# A folder of a task that the table does not know: its task may be on its way into it.
UNKNOWN_MS: Final = 60 * 60 * 1000
# What a rename took away, and what was not yet removed of it.
REMOVING: Final = ".removing"
SCRATCH: Final = "scratch"


def may_go(end: TaskEnd | None, *, now_ms: int, retention_ms: int, changed_ms: int) -> bool:
    """Whether a task's folder, last changed at some time, may go; `end` is None when no such task is known.
    Pure.
    """
    if end is None:
        return now_ms - changed_ms >= UNKNOWN_MS
    if end.finished_at is None:
        return False
    return end.removed_at is not None or now_ms - end.finished_at >= retention_ms


class Retention:
    """Looks now and then, and at once at a task that is removed by hand.

    `busy` names the tasks that this process still works on or has something to say of.
    """

    def __init__(
        self,
        room: Room,
        busy: Callable[[], set[str]],
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._room, self._busy, self._wall_ms = room, busy, wall_ms
        self._tasks = room.settings.paths.tasks
        self._retention_ms = int(room.settings.retention_s * 1000)
        # For threads.
        self._reader = TableReader(room.settings.paths.table_db)
        self._removing = asyncio.Lock()
        self._first = True

    async def run(self) -> None:
        """Looks until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear())
                await self._look_again_and_again()
        finally:
            self._reader.close()

    async def _look_again_and_again(self) -> None:
        wait = SWEEP_FIRST_S
        while True:
            await asyncio.sleep(wait)
            wait = SWEEP_S
            try:
                await self.sweep()
            except (HubError, OSError, sqlite3.Error) as error:
                self._room.log.warning("task folders were not looked through; later", error=str(error))

    async def sweep(self) -> list[str]:
        """Removes what may go; returns the ids of the tasks."""
        status = await self._room.hub.raft_status()
        # A table that lags, or is being made anew, does not know what is open.
        if status.mesh is None or status.leader is None or self._room.table.applied() < status.commit:
            return []
        # Nor does one into which the tasks of an earlier mesh are still being brought.
        if self._room.settings.paths.carried.exists():
            return []
        gone = await self._remove(await asyncio.to_thread(self._due))
        if gone:
            self._room.log.info("removed what tasks that have ended left here", count=len(gone))
        return gone

    def reason_gone(self, task_id: str) -> str | None:
        """Why nothing is here of a task that has ended, in words; None when nothing was removed."""
        row = self._room.table.task(task_id)
        if row is None or row.finished_at is None:
            return None
        if row.removed_at is not None:
            return f"its output and artifacts were removed by hand on {rfc3339(row.removed_at)}"
        if self._wall_ms() - row.finished_at >= self._retention_ms:
            days = self._room.settings.retention_s / 86_400
            ended = rfc3339(row.finished_at)
            return f"it ended on {ended}, and output is kept for {days:g} days (CHORUS_RETENTION)"
        return None

    async def _hear(self) -> None:
        """A task that is removed by hand goes at once."""
        table = self._room.table

        async def changed(message: Message) -> None:
            said = message.data if isinstance(message.data, dict) else {}
            tasks = said.get("tasks")
            try:
                named = [str(task) for task in tasks] if isinstance(tasks, list) else []
                if removed := [task for task in named if _removed(table.task_end(task))]:
                    await self._remove(removed)
            except (OSError, sqlite3.Error) as error:
                # The next look finds it.
                self._room.log.warning("a removed task is still here; later", error=str(error))

        async with self._room.hub.subscribe("local/table") as messages:
            await guard.each(messages, changed, "event")

    async def _remove(self, task_ids: list[str]) -> list[str]:
        """Removes those of the tasks that may go and have left something, and what an earlier life had begun
        to remove; returns the tasks.
        """
        if not task_ids and not await asyncio.to_thread((self._tasks / REMOVING).exists):
            return []
        async with self._removing:
            # Without a pause up to the renames: attempts begin on this loop, and none may come in between.
            busy = self._busy()
            going = [task for task in task_ids if task not in busy and self._may_go(self._room.table, task)]
            gone = [task for task in going if self._take_away(task)]
            await asyncio.to_thread(shutil.rmtree, self._tasks / REMOVING, True)
        return gone

    def _take_away(self, task_id: str) -> bool:
        """Moves records aside and the folder out of sight; returns whether there was one."""
        folder = self._tasks / task_id
        for record in folder.glob(f"*/{RECORD_FILE}"):
            aside = record_aside(self._tasks, task_id, record.parent.name)
            aside.parent.mkdir(parents=True, exist_ok=True)
            record.replace(aside)
        (self._tasks / REMOVING).mkdir(exist_ok=True)
        folder.replace(self._tasks / REMOVING / new_id())
        return True

    def _due(self) -> list[str]:
        """The tasks whose folders may go. For a thread: there may be very many."""
        busy = self._busy()
        due = []
        for task_id in self._kept():
            if task_id in busy:
                continue
            if self._may_go(self._reader, task_id):
                due.append(task_id)
            elif self._first:
                self._remove_scratch(task_id)
        self._first = False
        return due

    def _kept(self) -> list[str]:
        try:
            return [path.name for path in self._tasks.iterdir() if is_id(path.name)]
        except FileNotFoundError:
            return []

    def _may_go(self, table: TableReader, task_id: str) -> bool:
        try:
            changed_ms = int((self._tasks / task_id).stat().st_mtime * 1000)
        except FileNotFoundError:
            return False
        end = table.task_end(task_id)
        return may_go(end, now_ms=self._wall_ms(), retention_ms=self._retention_ms, changed_ms=changed_ms)

    def _remove_scratch(self, task_id: str) -> None:
        """What a killed life of this process had unpacked for an attempt."""
        end = self._reader.task_end(task_id)
        if end is not None and end.finished_at is not None:
            for scratch in (self._tasks / task_id).glob(f"*/{SCRATCH}"):
                shutil.rmtree(scratch, ignore_errors=True)


def _removed(end: TaskEnd | None) -> bool:
    return end is not None and end.removed_at is not None

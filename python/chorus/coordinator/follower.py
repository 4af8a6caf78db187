"""Follows the log and applies it to the table in small batches; tells whoever waits what came of an entry."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from chorus.hub import Entry as Committed
from chorus.hub import Hub, HubError, HubNoMesh, HubTimeout, disk_error
from chorus.process import Process, metrics
from chorus.table.effects import Outcome
from chorus.table.entries import Entry
from chorus.table.records import Known, Mesh
from chorus.table.store import TableGap, TableStore, TableTooNew

# As many entries as one transaction takes: a commit costs about as much as some entries, and at this size
# the loop is held for some milliseconds at most.
BATCH_MAX_ENTRIES = 64
TABLE_TOPIC = "local/table"
_NUMBER = re.compile(r"[0-9]+")
RETRY_S = 0.25
# A disk that failed is tried again after this, doubled each time: a full one may be so for hours, and who
# has made room should not have to wait.
DISK_RETRY_FIRST_S = 0.1
DISK_RETRY_MAX_S = 5.0


class ListenersLost(Exception):
    """A batch was applied, and not everybody who counts on it could hear of it: only a new start helps."""


class WrongMesh(Exception):
    """The table on disk and the log are of different meshes, or the log is shorter than what was applied."""


@dataclass(frozen=True, slots=True)
class Applied:
    """An entry and what came of it."""

    entry: Entry
    outcome: Outcome


Listener = Callable[[list[Applied]], None]


def kind_of(reason: str) -> str:
    """A refusal's reason as a label of a metric: without numbers, or a member could make ever new ones."""
    return _NUMBER.sub("n", reason.split(":")[0])[:40]


class Follower:
    """Feeds the table. `error` says why applying stopped, while it does."""

    def __init__(self, process: Process, hub: Hub, store: TableStore) -> None:
        self.store = store
        self.error: str | None = None
        self._disk_wait_s = DISK_RETRY_FIRST_S
        self._process = process
        self._hub = hub
        self._listeners: list[Listener] = []
        self._expected: dict[str, list[asyncio.Future[Applied]]] = {}
        self._mesh = ""
        self._advanced: asyncio.Future[None] | None = None
        self._news: dict[str, Any] | None = None
        self._publishing: asyncio.Task[None] | None = None

    def listen(self, listener: Listener) -> None:
        """Calls `listener` after each batch, in the loop."""
        self._listeners.append(listener)

    def expect(self, entry_id: str) -> asyncio.Future[Applied]:
        """A future of what comes of the entry with that id; give it back with `forget`."""
        future: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._expected.setdefault(entry_id, []).append(future)
        return future

    def forget(self, entry_id: str, future: asyncio.Future[Applied]) -> None:
        """Nobody waits on `future` any more."""
        if future.done() and not future.cancelled():
            future.exception()  # told or not, it is not news any more
        futures = self._expected.get(entry_id, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._expected.pop(entry_id, None)

    async def reached(self, index: int) -> None:
        """Returns when the entry at `index` is applied."""
        while self.store.applied < index:
            if self._advanced is None or self._advanced.done():
                self._advanced = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._advanced)

    def known(self, entry_id: str) -> Known | None:
        """What came of an entry that was applied before."""
        return self.store.get(Known, entry_id)

    async def run(self) -> None:
        """Applies for as long as this process lives. What stops it is shown: a disk that failed until it
        takes writes again, anything else for good.
        """
        while True:
            try:
                await self._check_mesh()
                await self._follow()
            except sqlite3.OperationalError as error:
                # The batch was rolled back as a whole, and is asked for again from its first entry.
                await self._wait_for_disk(f"the table cannot be written: {error}")
            except (WrongMesh, TableTooNew, TableGap, sqlite3.Error) as error:
                # Nothing may be skipped: better a table that stands still, visibly, than another table.
                self.error = f"{type(error).__name__}: {error}"
                self._process.log.error("applying stopped", reason=self.error)
                await asyncio.Event().wait()
            except HubNoMesh:
                await asyncio.sleep(RETRY_S)
            except HubError as error:
                self._process.log.warning("following the log failed; trying again", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _wait_for_disk(self, problem: str) -> None:
        if self.error is None:
            self._process.log.error("applying waits for the disk", reason=problem)
            self._disk_wait_s = DISK_RETRY_FIRST_S
        self.error = problem
        for futures in self._expected.values():
            for future in futures:
                if not future.done():
                    future.set_exception(HubTimeout(f"committed or not, it is not applied here: {problem}"))
        await asyncio.sleep(self._disk_wait_s)
        self._disk_wait_s = min(self._disk_wait_s * 2, DISK_RETRY_MAX_S)

    def check(self) -> None:
        """Raises the error that applying waits for, if it does: nothing could be answered meanwhile."""
        if self.error is not None:
            raise disk_error(self.error)

    async def _check_mesh(self) -> None:
        while True:
            status = await self._hub.raft_status()
            if status.mesh is not None:
                break
            if self.store.mesh is not None:
                raise WrongMesh(f"the table is of mesh {self.store.mesh}, and this agent is in none")
            await asyncio.sleep(RETRY_S)
        if self.store.mesh not in (None, status.mesh):
            raise WrongMesh(f"the table is of mesh {self.store.mesh}, the log of {status.mesh}")
        if self.store.applied > status.last:
            raise WrongMesh(f"{self.store.applied} entries were applied, the log has {status.last}")
        self._mesh = status.mesh

    async def _follow(self) -> None:
        async with self._hub.follow(self.store.applied + 1) as feed:
            while True:
                batch = [await feed.get()]
                while len(batch) < BATCH_MAX_ENTRIES and (more := feed.get_nowait()) is not None:
                    batch.append(more)
                self._apply([self._entry(committed) for committed in batch])
                # Applying does not wait for anything; others get their turn between batches.
                await asyncio.sleep(0)

    def _entry(self, committed: Committed) -> Entry:
        entry = Entry(
            committed.index,
            committed.stamp_ms,
            committed.type,
            committed.id,
            committed.author,
            committed.seen,
            committed.body,
        )
        return entry.of_mesh(self._mesh)

    def _apply(self, entries: list[Entry]) -> None:
        outcomes = self.store.apply_batch(entries)
        if self.error is not None:
            self._process.log.info("applying goes on", applied=self.store.applied)
            self.error = None
        batch = [Applied(*pair) for pair in zip(entries, outcomes, strict=False)]
        metrics.ENTRIES_APPLIED.inc(len(batch))
        for applied in batch:
            self._tell(applied)
        for listener in self._listeners:
            try:
                listener(batch)
            except sqlite3.Error as error:
                raise ListenersLost(str(error)) from error
        if self._advanced is not None and not self._advanced.done():
            self._advanced.set_result(None)
        self._publish(batch)
        if self.store.blocked is not None:
            raise self.store.blocked

    def _tell(self, applied: Applied) -> None:
        if not applied.outcome.accepted and applied.outcome.reason:
            metrics.ENTRIES_REFUSED.labels(kind_of(applied.outcome.reason)).inc()
        for future in self._expected.pop(applied.entry.id, ()):
            if not future.done():
                future.set_result(applied)

    def _publish(self, batch: list[Applied]) -> None:
        news = self._news or {"tasks": {}, "members": False, "leader": False, "versions": False}
        for applied in batch:
            news["tasks"].update(dict.fromkeys(applied.outcome.tasks))
            news["members"] = news["members"] or applied.outcome.members
            news["leader"] = news["leader"] or applied.outcome.leader
            news["versions"] = news["versions"] or applied.outcome.versions
        if not any(news.values()):
            # A vote, a refused entry, a repeat: nothing that anybody follows.
            return
        self._news = news
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_news())

    async def _publish_news(self) -> None:
        # Batches that come while the hub takes a message are told in the next one.
        while self._news is not None:
            news, self._news = self._news, None
            try:
                await self._hub.publish_local(
                    TABLE_TOPIC, {**news, "applied": self.store.applied, "tasks": list(news["tasks"])}
                )
            except HubError as error:
                self._process.log.warning("news of the table not published", error=str(error))

    def mesh(self) -> Mesh:
        """The mesh as the table has it; raises HubNoMesh before there is one."""
        mesh = self.store.get(Mesh, "mesh")
        if mesh is None:
            raise HubNoMesh("this agent is in no mesh yet")
        return replace(mesh)

"""Keeps the index up with the table: what it lists is fetched from the DHT, verified and indexed.

What cannot be had yet is tried again, ever more seldom; what is sealed for others is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from chorus import decisions
from chorus.core import Ucxl
from chorus.curator import documents
from chorus.curator.documents import Document, Place
from chorus.curator.index import IndexReader
from chorus.curator.writer import IndexWriter, Pending, damaged
from chorus.decisions import content
from chorus.hub import Hub, HubError, guard
from chorus.process.logs import Logger
from chorus.table.reader import TableReader

# Fetched at the same time: the DHT and the tasks have better things to do.
AT_ONCE = 8
BATCH_MAX = 64
LISTED_MAX = 500
RETRY_FIRST_MS = 1_000
RETRY_MAX_MS = 10 * 60 * 1_000
# When the disk does not take the index; it is looked at again after this.
TROUBLE_S = 10.0
T = TypeVar("T")

# Asking again will not change these answers.
_NEVER = frozenset({"not_permitted", "invalid", "too_large"})


class Feed:
    """One per agent, in its coordinator. `wake` after entries were applied."""

    def __init__(
        self,
        hub: Hub,
        table: TableReader,
        path: Path,
        whose: Callable[[], str],
        log: Logger,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.reader = IndexReader(path)
        self._hub, self._table, self._path, self._whose, self._log = hub, table, path, whose, log
        self._wall_ms = wall_ms
        self._index: IndexWriter | None = None
        # The file's own thread: the loop never waits for the disk, and there one thing is done at a time.
        self._thread = ThreadPoolExecutor(1, "curator")
        self._news = asyncio.Event()
        self.trouble = ""

    def wake(self) -> None:
        """There may be more in the table."""
        self._news.set()

    async def run(self) -> None:
        """Works until cancelled; whatever is wrong with the file never ends it."""
        try:
            while True:
                try:
                    await self._work()
                except Exception as error:
                    before = self.trouble
                    self._stumble(error)
                    # Damage that comes back at once is no accident; then it waits like everything else.
                    if await self._begin_anew(error) and not before:
                        continue
                await asyncio.sleep(TROUBLE_S)
        finally:
            if self._index is not None:
                self._index.interrupt()
                self._thread.submit(self._index.close)
            self._thread.shutdown()
            self.reader.close()

    async def counts(self) -> dict[str, int]:
        """How far the index is; empty while there is none."""
        if self._index is None:
            return {}
        with contextlib.suppress(sqlite3.Error):
            return await self._call(self._index.counts)
        return {}

    async def _call(self, work: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    def _stumble(self, error: Exception) -> None:
        self.trouble = str(error) or type(error).__name__
        self._log.error("the index of decisions stands still", error=str(error))

    async def _begin_anew(self, error: Exception) -> bool:
        """Replaces the file if the error says that it is damaged; whether there is another now."""
        if self._index is None or not isinstance(error, sqlite3.DatabaseError) or not damaged(error):
            return False
        self._log.warning("the index is made anew")
        try:
            await self._replace()
        except (sqlite3.Error, OSError) as failure:
            self._stumble(failure)
            return False
        return True

    async def _work(self) -> None:
        if self._index is None:
            self._index = await self._call(IndexWriter, self._path, self._whose())
            if not await self._call(self._index.sound):
                self._log.warning("the index is damaged and made anew")
                await self._replace()
        while True:
            self._news.clear()
            mesh = self._read(self._table.mesh)
            if mesh is None:
                await self._news.wait()
                continue
            if self._index.whose != self._whose() or not await self._call(self._index.belongs_to, mesh.mesh):
                await self._replace()
                continue
            while await self._scan():
                pass
            while items := await self._call(self._index.due, self._wall_ms(), BATCH_MAX, RETRY_MAX_MS):
                await self._fetch(items)
                # What was just listed is asked for sooner than what has waited.
                await self._scan()
            self.trouble = ""
            await self._rest()

    async def _replace(self) -> None:
        """Begins with an empty file. Where that fails there is no index, until the next try makes one."""
        index, self._index = self._index, None
        assert index is not None
        await self._call(index.discard)
        self._index = await self._call(IndexWriter, self._path, self._whose())

    async def _scan(self) -> bool:
        """Takes over what the table lists; whether there may be more."""
        assert self._index is not None
        items, more = self._listed(await self._call(self._index.scanned))
        if items:
            await self._call(self._index.queue, items, items[-1].id)
        return more

    def _read(self, read: Callable[..., T], *values: Any) -> T:
        """A look at the table. What is wrong with it says nothing of the index, and so is another error."""
        try:
            return read(*values)
        except sqlite3.Error as error:
            # Opened again next time: the file may have been replaced.
            self._table.close()
            raise OSError(f"the table cannot be read: {error}") from error

    def _listed(self, after: int) -> tuple[list[Pending], bool]:
        """What the table lists after an entry, in its order, and whether there may be more."""
        records = self._read(self._table.decisions_after, after, LISTED_MAX)
        versions = self._read(lambda: self._table.ucxl.after(after, limit=LISTED_MAX))
        full = [rows[-1].index for rows in (records, versions) if len(rows) == LISTED_MAX]
        # Of a list that was cut, nothing is known beyond its end.
        end = min(full, default=2**63)
        found = {row.index: Pending(row.index, {"hash": row.hash}) for row in records}
        for row in versions:
            if row.index not in found:
                found[row.index] = Pending(row.index, {"address": row.address, "version": row.version})
            else:
                found[row.index].listed["version"] = row.version
        return [found[index] for index in sorted(found) if index <= end], bool(full)

    async def _rest(self) -> None:
        assert self._index is not None
        due = await self._call(self._index.next_due_ms)
        timeout = None if due is None else max(0.05, min(RETRY_MAX_MS, due - self._wall_ms()) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()

    async def _fetch(self, items: list[Pending]) -> None:
        assert self._index is not None
        gate = asyncio.Semaphore(AT_ONCE)
        found: list[Document] = []
        skipped: list[int] = []
        refused: list[int] = []
        again: list[tuple[int, int]] = []

        async def one(item: Pending) -> None:
            try:
                async with gate:
                    document = await self._document(item)
            except decisions.DecisionError as error:
                self._log.warning(
                    "a record is not believed", hash=item.listed.get("hash"), error=error.reason
                )
                refused.append(item.id)
            except (sqlite3.Error, OSError):
                raise
            except ValueError as error:
                self._log.warning("what is listed cannot be indexed", listed=item.listed, error=str(error))
                refused.append(item.id)
            except HubError as error:
                if error.code in _NEVER:
                    skipped.append(item.id)
                else:
                    wait = min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** min(item.tries, 20))
                    again.append((item.id, self._wall_ms() + wait))
            except Exception as error:
                guard.failed("record", error, listed=item.listed)
                refused.append(item.id)
            else:
                if document is None:
                    skipped.append(item.id)
                else:
                    found.append(document)

        await asyncio.gather(*(one(item) for item in items))
        await self._call(self._index.settle, found, skipped, refused, again)

    async def _document(self, item: Pending) -> Document | None:
        if "address" in item.listed:
            return await self._content(item.listed["address"], item.listed["version"])
        row = self._read(self._table.decision, item.listed["hash"])
        if row is None:
            return None
        verified = await decisions.fetch(self._hub, row.hash, listed=row, hints=(row.author,))
        return documents.of_record(
            verified.record,
            id=row.index,
            hash=row.hash,
            place=place_of(row.address),
            author=row.author,
            at_ms=row.at_ms,
            version=item.listed.get("version"),
        )

    async def _content(self, address: str, version: int) -> Document | None:
        row = self._read(self._table.ucxl.version, address, version)
        if row is None:
            return None
        parts = Ucxl.parse(address)
        return documents.of_content(
            None if row.deleted else await content.fetch(self._hub, row),
            id=row.index,
            hash=row.hash,
            address=address,
            path=parts.path,
            place=place_of(address),
            author=row.author,
            at_ms=row.at_ms,
            version=version,
        )


def place_of(address: str) -> Place:
    """The parts of the address of a verified record."""
    parts = Ucxl.parse(address)
    return Place(parts.agent, parts.role, parts.project, parts.task)

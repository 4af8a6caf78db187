"""Brings what this agent carried along from another mesh into the table of this one, line by line.

Every line may be proposed again after a kill: the table leaves alone what it has. The file goes once all of
it is in the table; what the table refuses is kept aside, and said.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import BinaryIO, Final

from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.proposals import Proposals
from chorus.hub import Hub, HubError
from chorus.process import Process
from chorus.table import imports
from chorus.table.carried import Header, Line, read_header, read_line
from chorus.table.entries import may_count_later
from chorus.table.entry_types import SINCE
from chorus.table.records import Known, Member, Mesh
from chorus.wire.counts import counted
from chorus.wire.ids import new_id

# The version of the table from which on entries that bring something along count; those that bring a goal
# count later, and are said again until then.
SINCE_VERSION: Final = SINCE["import_task"]
# Lines about different things that are under way at once: a commit is waited for by many.
AT_ONCE: Final = 32
ENTRY_TIMEOUT_S: Final = 15.0
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
# Errors that are about the line itself: it will not be taken later either.
_FINAL: Final = frozenset({"invalid", "too_large"})


class Importing:
    """Works off the carry file, if there is one."""

    def __init__(self, process: Process, hub: Hub, follower: Follower, proposals: Proposals) -> None:
        self._process, self._hub, self._proposals = process, hub, proposals
        self._store = follower.store
        self._path: Path = process.settings.paths.carried
        self._header: Header | None = None
        self._size = self._done = 0
        self._ready = False
        self._refused = 0
        self._problem = ""
        self._members = asyncio.Event()
        follower.listen(self._on_applied)
        if self._path.exists():
            self._open()

    @property
    def open(self) -> bool:
        """Whether something is not in the table yet."""
        return self._header is not None

    @property
    def recovering(self) -> bool:
        """Whether this agent founded the mesh to go on from another, and that is not all in the table yet."""
        return self._header is not None and self._header.recovers

    @property
    def detail(self) -> str:
        """How far it is, for people; empty when there is nothing to say."""
        if self._header is None:
            return self._problem
        what = f"what this agent had in mesh {self._header.origin}"
        if not self._ready:
            return f"{what} waits until all members of this mesh know version {SINCE_VERSION} of the table"
        return f"{what} is being brought into this mesh: {100 * self._done // max(1, self._size)} %"

    async def run(self) -> None:
        """Ends when everything is in the table."""
        if self._header is None:
            return
        while not self._may_begin():
            self._members.clear()
            await self._members.wait()
        self._ready = True
        self._process.log.info("bringing along what was in another mesh", mesh=self._header.origin)
        with self._path.open("rb") as file:
            file.readline()
            await self._bring_all(file)
        self._close()

    def _on_applied(self, batch: list[Applied]) -> None:
        if any(applied.outcome.members for applied in batch):
            self._members.set()

    def _may_begin(self) -> bool:
        mesh = self._store.get(Mesh, "mesh")
        listed = self._store.get(Member, self._hub.peer_id) is not None
        return mesh is not None and mesh.version >= SINCE_VERSION and listed

    def _open(self) -> None:
        self._size = self._path.stat().st_size
        try:
            with self._path.open("rb") as file:
                self._header = read_header(file.readline())
        except ValueError as error:
            self._refused = 1
            self._problem = str(error)
            self._close()

    async def _bring_all(self, file: BinaryIO) -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        # By subject: the line that the next about it waits for.
        newest: dict[str, asyncio.Task[None]] = {}

        async def bring(line: Line, before: asyncio.Task[None] | None, end: int) -> None:
            try:
                if before is not None:
                    await before
                await self._bring(line)
                self._done = max(self._done, end)
            finally:
                gate.release()
                if newest.get(line.subject) is asyncio.current_task():
                    del newest[line.subject]

        async with asyncio.TaskGroup() as group:
            while raw := file.readline():
                try:
                    line = read_line(raw)
                except ValueError as error:
                    self._refuse("", str(error))
                    continue
                await gate.acquire()
                before = newest.get(line.subject)
                newest[line.subject] = group.create_task(bring(line, before, file.tell()))

    async def _bring(self, line: Line) -> None:
        ident, wait = line.id, RETRY_FIRST_S
        while not self._is_there(line, ident):
            try:
                settled = await self._proposals.propose(line.type, line.body, ENTRY_TIMEOUT_S, entry_id=ident)
            except HubError as error:
                if error.code in _FINAL:
                    self._refuse(line.type, str(error))
                    return
            else:
                if settled.accepted or settled.reason.startswith(imports.KNOWN):
                    return
                if not may_count_later(settled.reason):
                    self._refuse(line.type, settled.reason)
                    return
                # The table remembers the id that it refused.
                ident = new_id()
            await asyncio.sleep(wait)
            wait = min(wait * 2, RETRY_MAX_S)

    def _is_there(self, line: Line, ident: str) -> bool:
        known = self._store.get(Known, ident)
        if known is not None and known.accepted:
            return True
        try:
            return imports.is_there(self._store, line.type, line.body)
        except (KeyError, TypeError):
            # Not a body of this type: the table says why.
            return False

    def _refuse(self, type: str, reason: str) -> None:
        self._refused += 1
        self._problem = self._problem or reason
        self._process.log.error("something of another mesh is not brought along", type=type, reason=reason)

    def _close(self) -> None:
        header, self._header = self._header, None
        if not self._refused:
            self._path.unlink()
            self._process.log.info("all of another mesh is in the table", mesh=header and header.origin)
            return
        aside = self._process.settings.paths.replaced / f"carried.{time.time_ns()}.jsonl"
        aside.parent.mkdir(parents=True, exist_ok=True)
        self._path.rename(aside)
        records = counted(self._refused, "record")
        self._problem = (
            f"{records} of another mesh {'was' if self._refused == 1 else 'were'} not taken"
            f" (the first: {self._problem});"
            f" all that was carried along is kept in {aside}"
        )
        self._process.log.error("not everything was brought along", reason=self._problem)

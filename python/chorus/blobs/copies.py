"""Two members hold what tasks need: what one alone holds is copied to another, which an entry then names.

The parts of a task are its inputs (blobs, which the coordinator keeps) and what its attempts left (folders,
which the executor keeps). Each of the two processes has `Copies` of its own, with its own way to find what
lies here and to send it. Nothing is written down of what is under way: after a crash the next look finds what
is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from chorus.hub import Hub, HubError
from chorus.process.logs import Logger
from chorus.table.entry_types import SINCE
from chorus.table.reader import TableReader

# How often it is looked whether members came or went; nobody waits for a copy.
CHECK_S: Final = 15.0
# What could not be copied is tried again after this.
RETRY_S: Final = 30.0
_ENTRY_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Part:
    """What an attempt of a task left, or the task's inputs when `attempt` is None."""

    task_id: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """This agent has the part, and no listed member is named as its holder: it names itself."""


@dataclass(frozen=True, slots=True)
class Give:
    """This agent alone holds the part and gives it to one of the members, the first that takes it."""

    targets: tuple[str, ...]


def due(me: str, part: Part, holders: Iterable[str], members: Mapping[str, bool]) -> Say | Give | None:
    """What this agent, which has the part on its disk, does about it; None for nothing. Pure.

    `holders` and `members` are listed ones; of members it is said whether they are present.
    """
    named = list(holders)
    if not named:
        return Say()
    if named != [me]:
        return None
    return Give(targets(me, part, members))


def targets(me: str, part: Part, members: Mapping[str, bool]) -> tuple[str, ...]:
    """The other members that are present, in the order in which they are asked to take the part. Pure.

    The order differs from part to part (rendezvous hashing), so that copies are spread.
    """
    there = (peer for peer, present in members.items() if present and peer != me)
    key = f"{part.task_id}/{part.attempt}"
    return tuple(sorted(there, key=lambda peer: hashlib.sha256(f"{key}/{peer}".encode()).digest()))


class Copies:
    """Sees to the second copy of the parts that lie here.

    `here(reader)` lists them without those that nobody needs any more; it is called on a thread.
    `send(part, peer)` returns once the member has the part on its disk, and raises HubError or OSError.
    """

    def __init__(
        self,
        hub: Hub,
        table: Path,
        log: Logger,
        here: Callable[[TableReader], Iterable[Part]],
        send: Callable[[Part, str], Awaitable[None]],
    ) -> None:
        self._hub, self._log, self._here, self._send = hub, log, here, send
        # For one thread at a time.
        self._reader = TableReader(table)
        self._looked: tuple[str, frozenset[str], bool] | None = None
        self._left = False

    def missed(self) -> None:
        """A part came here of which there is no second copy yet: the next look is not left out."""
        self._left = True

    async def run(self) -> None:
        """Looks when the mesh's members are others than before, until cancelled."""
        try:
            while True:
                await asyncio.sleep(RETRY_S if self._left else CHECK_S)
                try:
                    await self.look()
                except (HubError, OSError, sqlite3.Error) as error:
                    self._left = True
                    self._log.warning("copies of tasks were not looked through; later", error=str(error))
        finally:
            self._reader.close()

    async def look(self) -> list[Part]:
        """Copies what lies here alone, one part after the other; returns what it made copies of or named.

        Does nothing when the members are those of the last look and nothing was left to be done.
        """
        status = await self._hub.raft_status()
        mesh = await asyncio.to_thread(self._reader.mesh)
        if mesh is None or mesh.version < SINCE["holders"] or status.leader is None:
            return []
        members = await asyncio.to_thread(self._members)
        # A removal takes holders away; one that comes, or the first that comes back, can become one.
        others = any(present for peer, present in members.items() if peer != self._hub.peer_id)
        seen = (mesh.mesh, frozenset(members), others)
        if seen == self._looked and not self._left:
            return []
        # A table that lags does not know who holds what.
        if await asyncio.to_thread(self._reader.applied) < status.commit:
            return []
        self._left, done = False, list[Part]()
        for part, what in await asyncio.to_thread(self._due, members):
            if isinstance(what, Say):
                await self.name(part, self._hub.peer_id)
                # Its second copy is the next look's.
                self._left = True
                done.append(part)
            elif (peer := await self.copy(part, what.targets)) is not None:
                await self.name(part, peer)
                done.append(part)
            elif what.targets:
                self._left = True
        if done:
            self._log.info("saw to second copies of what tasks need", count=len(done))
        self._looked = seen
        return done

    async def copy(self, part: Part, targets: Iterable[str]) -> str | None:
        """The first of the members that takes a copy, which it has on its disk then; None when none does."""
        for peer in targets:
            try:
                await self._send(part, peer)
            except (HubError, OSError) as error:
                self._log.info("no copy there", task_id=part.task_id, peer=peer, error=str(error))
            else:
                return peer
        return None

    async def name(self, part: Part, peer: str) -> None:
        """Says by an entry that the member holds the part. Raises HubError when it is not committed."""
        body: dict[str, Any] = {"task_id": part.task_id, "attempt": part.attempt, "peer": peer}
        # Refused when it is known, or when the task is gone meanwhile: nothing is left to do then either.
        await self._hub.call_service(
            "coordinator",
            "table.propose",
            {"type": "holders"},
            orjson.dumps(body),
            timeout=_ENTRY_TIMEOUT_S,
        )

    def _members(self) -> dict[str, bool]:
        return {member.peer: member.present for member in self._reader.members()}

    def _due(self, members: Mapping[str, bool]) -> list[tuple[Part, Say | Give]]:
        found = []
        for part in self._here(self._reader):
            holders = [holder.peer for holder in self._reader.held.holders(part.task_id, part.attempt)]
            what = due(self._hub.peer_id, part, holders, members)
            if what is not None:
                found.append((part, what))
        return found

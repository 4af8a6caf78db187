"""The coordinator process: wires follower, leader's duties, services and news, and runs them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import Any

from chorus.blobs import BlobStore, exchange
from chorus.coordinator import SERVICE
from chorus.coordinator.ballots import Ballots
from chorus.coordinator.blob_keeper import BlobKeeper
from chorus.coordinator.curating import Curating
from chorus.coordinator.follower import DISK_RETRY_FIRST_S, DISK_RETRY_MAX_S, Follower
from chorus.coordinator.gossip import Gossip
from chorus.coordinator.hmmm.service import Hmmm
from chorus.coordinator.importing import Importing
from chorus.coordinator.input_copies import InputCopies
from chorus.coordinator.leading import Leading
from chorus.coordinator.newest import Newest
from chorus.coordinator.profile import ProfileKeeper
from chorus.coordinator.proposals import Proposals
from chorus.coordinator.redaction import Redaction
from chorus.coordinator.role_topics import RoleTopics
from chorus.coordinator.submission import Submission
from chorus.hub import (
    ByteStream,
    Handler,
    Hub,
    HubError,
    HubInvalid,
    HubRefused,
    Reply,
    Request,
    disk_error,
    guard,
)
from chorus.process import Process
from chorus.process.sentinel import scanner_of
from chorus.table.records import Member, Mesh
from chorus.table.store import TableStore


async def open_table(process: Process) -> TableStore | None:
    """The table, as soon as the disk lets it be opened; None when a stop was asked for before."""
    wait = DISK_RETRY_FIRST_S
    while not process.stopping.is_set():
        try:
            store = TableStore(process.settings.paths.table_db)
            if store.rebuilt:
                process.log.info("the table has a new form and is made anew from the log")
            return store
        except (sqlite3.OperationalError, OSError) as error:
            problem = f"the table cannot be opened: {error}"
        process.log.error("waiting for the disk", reason=problem)
        process.health.set(False, problem)

        async def refuse(request: Request, problem: str = problem) -> dict[str, Any]:
            if request.method == "health":
                return process.health.answer()
            raise disk_error(problem)

        with contextlib.suppress(HubError):
            await process.hub.offer(SERVICE, refuse, peers=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await process.stopping.wait()
        wait = min(wait * 2, DISK_RETRY_MAX_S)
    return None


class Coordinator:
    """All parts of the process. `run` ends when it is cancelled."""

    def __init__(self, process: Process, hub: Hub, store: TableStore, **leading: Any) -> None:
        self._process, self._hub, self.store = process, hub, store
        self.blobs = BlobStore(process.settings.paths.blobs, process.settings.blobs_bytes)
        self.follower = Follower(process, hub, self.store)
        redaction = Redaction(scanner_of(process.settings), process.log)
        self.proposals = Proposals(hub, self.follower, redaction)
        self.leading = Leading(process, hub, self.follower, self.proposals, **leading)
        self.newest = Newest(hub, self.follower, self.leading.proofs)
        self.importing = Importing(process, hub, self.follower, self.proposals)
        self.submission = Submission(
            process, hub, self.follower, self.proposals, self.blobs, self.newest, self.importing
        )
        self.gossip = Gossip(process, hub, self.follower, self.proposals, self.leading, self.submission)
        self.role_topics = RoleTopics(
            hub,
            process.log,
            process.settings.agent_id,
            process.assignments,
            self.gossip.hear,
            lambda peer: self.store.get(Member, peer) is not None,
        )
        self.profile = ProfileKeeper(process, hub, self.follower, self.proposals)
        wall = {"wall_ms": leading["wall_ms"]} if "wall_ms" in leading else {}
        self.ballots = Ballots(process, hub, self.follower, self.proposals, self.leading, **wall)
        self.curating = Curating(process, hub, self.follower)
        clock = (leading["wall_ms"],) if "wall_ms" in leading else ()
        self.hmmm = Hmmm(process, hub, self.follower, self.proposals, *clock)
        self.blob_keeper = BlobKeeper(process, hub, self.follower, self.blobs)
        self.input_copies = InputCopies(process, hub, self.follower, self.blobs, **wall)
        self.submission.alone = self.input_copies.copies.missed
        self._methods: dict[str, Handler] = {
            "table.submit": self.submission.submit,
            "table.cancel": self.submission.cancel,
            "table.retry": self.submission.retry,
            "table.remove": self.submission.remove,
            "table.propose": self.submission.propose,
            "table.index": self.newest.index,
            "table.reach": self.newest.reach,
            "votes.cast": self.ballots.cast,
            "votes.open": self.ballots.open,
            "context": self.curating.context,
            "context.choose": self.curating.choose,
            "renew": self._renew,
            "blobs.has": self._has_blob,
            "blobs.fetch": self._fetch_blob,
            "profile.refresh": self._refresh,
            "drain": self._drain,
            "health": self._health,
            **self.hmmm.methods,
        }

    async def run(self) -> None:
        """Serves and works until cancelled."""
        await self._hub.offer(SERVICE, self._serve, peers=True, streams=self._stream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follower.run())
                group.create_task(self.leading.run())
                group.create_task(self.gossip.run())
                group.create_task(self.role_topics.run())
                # What the table's file fails with is the process's: it starts anew and waits for the disk.
                disk = (sqlite3.OperationalError,)
                group.create_task(guard.lasting(self.profile.run, "answer", raising=disk))
                group.create_task(guard.lasting(self.profile.broadcast, "answer", raising=disk))
                group.create_task(guard.lasting(self.ballots.run, "record", raising=disk))
                group.create_task(self.curating.run())
                group.create_task(self._follow_assignments())
                group.create_task(self.importing.run())
                group.create_task(guard.lasting(self.hmmm.run, "gossip"))
                group.create_task(guard.lasting(self.blob_keeper.run, "record"))
                group.create_task(guard.lasting(self.input_copies.copies.run, "record"))
        finally:
            self.hmmm.close()
            self.store.close()

    async def _follow_assignments(self) -> None:
        """Another assignment is for the table, and with another role this agent can read other records."""
        async for _ in self._process.assignments.changes():
            self.profile.refresh()
            self.curating.feed.wake()

    async def _serve(self, request: Request) -> Reply | dict[str, Any] | None:
        method = self._methods.get(request.method)
        if method is None:
            raise HubInvalid(f"{SERVICE} has no method {request.method!r}")
        self._check_member(request)
        return await method(request)

    def _check_member(self, request: Request) -> None:
        """Peers are served when the table lists them, whatever the network lets through."""
        if request.peer is not None and self.store.get(Member, request.peer) is None:
            raise HubRefused("only members of the mesh are served here; join it first")

    async def _stream(self, request: Request, stream: ByteStream) -> None:
        self._check_member(request)
        await exchange.serve_stream(self.blobs, request, stream)

    async def _renew(self, request: Request) -> dict[str, Any]:
        """`renew` {task_id, attempt, mesh}: a lease's renewal, to the leader."""
        head = request.head
        try:
            task_id, attempt = str(head["task_id"]), int(head["attempt"])
        except (KeyError, TypeError, ValueError):
            raise HubInvalid("give task_id and attempt") from None
        peer = request.peer or self._hub.peer_id
        await self.leading.renew(task_id, attempt, str(head.get("mesh") or ""), peer)
        return {"lease_s": self.leading.leases.lease_s}

    async def _has_blob(self, request: Request) -> dict[str, Any]:
        said = exchange.has(self.blobs, request)
        # Whoever asks is about to name it in a task.
        return said if await self.blobs.keep(str(request.head["sha256"])) else {"has": False, "size": 0}

    async def _fetch_blob(self, request: Request) -> dict[str, Any]:
        """`blobs.fetch` {sha256, holders}: brings a blob to this agent's disk, for the executor."""
        sha256 = str(request.head.get("sha256"))
        holders = [str(peer) for peer in request.head.get("holders") or ()]
        await exchange.fetch(self._hub, self.blobs, sha256, holders)
        return {"size": self.blobs.size(sha256)}

    async def _refresh(self, request: Request) -> dict[str, Any]:
        self.profile.refresh()
        return {}

    async def _drain(self, request: Request) -> dict[str, Any]:
        """`drain` {deadline_s?}: no more awards to this agent; says so in the table if the mesh can."""
        self.profile.draining = True
        self.profile.refresh()
        deadline = float(request.head.get("deadline_s") or request.timeout)
        try:
            async with asyncio.timeout(deadline):
                await self.profile.say()
        except (HubError, TimeoutError) as error:
            self._process.log.info("the mesh was not told of the drain", error=str(error))
        await self.submission.notes.settle()
        return {"accepting": self.profile.accepting}

    async def _health(self, request: Request) -> dict[str, Any]:
        mesh = self.store.get(Mesh, "mesh")
        ok = self.follower.error is None
        detail = self.follower.error or self.importing.detail
        detail = detail or ("applying" if mesh is not None else "in no mesh yet")
        return {
            "ok": ok,
            "detail": detail,
            "applied": self.store.applied,
            "mesh": mesh.mesh if mesh is not None else None,
            "leading": self.leading.active,
            "table_version": mesh.version if mesh is not None else None,
            "held_back_by": list(self.leading.held_back_by),
            "waiting": sum(1 for _ in self.leading.board.waiting()) if self.leading.active else None,
            "running": len(self.leading.board.working) if self.leading.active else None,
            "index": {**await self.curating.feed.counts(), "trouble": self.curating.feed.trouble},
            "members": len(list(self.store.records(Member))) if mesh is not None else 0,
        }


async def main(process: Process) -> None:
    """The process's body."""
    store = await open_table(process)
    if store is None:
        return
    coordinator = Coordinator(process, process.hub, store)
    work = asyncio.create_task(coordinator.run())
    stop = asyncio.create_task(process.stopping.wait())
    await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if work.done():
        # Only an error ends it.
        await work
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)

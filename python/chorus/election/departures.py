"""Has this agent leave its mesh: finds the facts, asks `departing` whether to go, and leaves a note for the
agent's parent, which ends all processes and sees to the rest at the next start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from chorus.election import departing
from chorus.election.departing import Own, Patience, Span
from chorus.election.lone import is_lone
from chorus.election.neighbours import Neighbours
from chorus.hub import Hub, HubError, HubNoMesh, HubRefused, RaftStatus, guard
from chorus.process import Process
from chorus.process.departure import Departure, UnreadableDeparture, read_departure, write_departure
from chorus.table.carried import header_of
from chorus.table.reader import TableReader

# A second mesh is to be noticed within seconds.
LOOK_EVERY_S: Final = 1.0
# While the mesh has a leader and only its members are connected: what changes that has this look at once.
CALM_LOOK_S: Final = 10.0


class Departures:
    """Looks around, and leaves when that is due. `under_way` is the departure that has been decided."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        neighbours: Neighbours,
        reader: TableReader,
        changing: asyncio.Lock,
        met: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._hub, self._neighbours, self._reader = process, hub, neighbours, reader
        # Held where members change: who leaves admits nobody from then on.
        self._changing, self._met, self._clock = changing, met, clock
        self._leaderless, self._alone = Span(), Span()
        self._leaderless_s = self._alone_s = 0.0
        self._looking = asyncio.Lock()
        self._news = asyncio.Event()
        self._calm = False
        self._told: set[str] = set()
        self._last_mesh = ""
        self._patience = Patience(0.0, 0.0)
        self._own: Own | None = None
        self.under_way = self._decided_before()

    def closed(self) -> str:
        """Why this agent takes nobody into its mesh; "" while it does."""
        if self.under_way is not None:
            return f"this agent is leaving its mesh: {self.under_way.why}"
        try:
            header = header_of(self._process.settings.paths.carried)
            if header is not None and header.recovers:
                return "the records of the mesh that was lost are being brought in; ask again"
        except OSError as error:
            return f"the carry file cannot be read: {error.strerror}"
        return ""

    def look_again(self) -> None:
        """A peer came or went, or the mesh has another leader or none."""
        self._news.set()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self._calm = False
            try:
                await self.look()
            except (HubError, OSError) as error:
                self._process.log.info("the meshes around were not looked at", error=str(error))
            try:
                async with asyncio.timeout(CALM_LOOK_S if self._calm else LOOK_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()

    async def look(self) -> None:
        """One look around; leaves when that is due."""
        async with self._looking:
            status = await self._hub.raft_status()
            if self.under_way is not None or (status.mesh is None and not status.removed):
                return
            own = await self._look(status)
            if self._due(own) is None:
                return
            async with self._changing:
                # Somebody may have joined meanwhile.
                if (due := self._due(self._own_now(await self._hub.raft_status()))) is not None:
                    await self.leave(due)

    async def rejoin(self) -> Departure:
        """Leaves for another mesh because a person wants it. Raises HubRefused when there is none to join."""
        async with self._looking:
            status = await self._hub.raft_status()
            if status.mesh is None:
                raise HubNoMesh("this agent is in no mesh, and joins the first that it meets")
            own = await self._look(status)
            async with self._changing:
                self.check_stays()
                decided = departing.by_hand(own, self._neighbours.others)
                if isinstance(decided, str):
                    raise HubRefused(decided)
                await self.leave(decided)
                return decided

    def check_stays(self) -> None:
        """Raises HubRefused when this agent is leaving its mesh already."""
        if self.under_way is not None:
            raise HubRefused(f"this agent is leaving its mesh already: {self.under_way.why}")

    async def leave(self, departure: Departure) -> None:
        """Writes the note; the caller holds the lock of changes. Raises OSError."""
        await asyncio.to_thread(write_departure, self._process.settings.paths.departure, departure)
        self.under_way = departure
        self._process.log.warning("leaving the mesh", kind=departure.kind, reason=departure.why)

    def warnings(self) -> list[str]:
        """What people are to know of other meshes, and what they can do."""
        if self._own is None or self.under_way is not None:
            return []
        rejoin = self._process.settings.rejoin
        return departing.warnings(self._own, self._neighbours.others, self._patience, rejoin=rejoin)

    def _due(self, own: Own) -> Departure | None:
        rejoin = self._process.settings.rejoin
        return departing.departure(own, self._neighbours.others, self._patience, rejoin=rejoin)

    async def _look(self, status: RaftStatus) -> Own:
        now = self._clock()
        if status.mesh is None or status.settings is None:
            return self._own_now(status)
        self._last_mesh = status.mesh
        self._patience = Patience.of(status.settings)
        self._leaderless_s = self._leaderless.see(status.leader is None, now)
        suspicious = self._leaderless_s >= self._patience.leaderless_s
        await self._neighbours.look(status, suspicious=suspicious)
        alone = suspicious and not self._neighbours.own_members
        self._alone_s = self._alone.see(alone, self._clock())
        self._calm = status.leader is not None and self._neighbours.all_members
        own = self._own = self._own_now(status)
        others = self._neighbours.others
        if new := {other.mesh for other in others} - self._told:
            # Few: only holders of the cluster secret are believed.
            self._told |= new
            self._process.log.warning("two meshes", detail=" ".join(self.warnings()))
            self._met()
        return own

    def _own_now(self, status: RaftStatus) -> Own:
        mesh = status.mesh or self._last_mesh
        if not mesh and (row := self._reader.mesh()) is not None:
            mesh = row.mesh
        by = self._neighbours.removed_by
        removed = status.removed or (by and f"mesh {mesh} has removed this agent, as its member {by} says")
        return Own(
            mesh,
            lone=is_lone(status, self._reader, self._hub.peer_id),
            carrying=self._process.settings.paths.carried.exists(),
            # Without the mesh's id the parent does not know what to leave.
            removed=removed if mesh else "",
            leaderless_s=self._leaderless_s,
            alone_s=self._alone_s,
        )

    def _decided_before(self) -> Departure | None:
        """What this process decided before it was started anew; the parent is about to see it."""
        try:
            return read_departure(self._process.settings.paths.departure)
        except (OSError, UnreadableDeparture) as error:
            guard.failed("record", error)
            return None

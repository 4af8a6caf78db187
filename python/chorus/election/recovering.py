"""When a majority of the voters is lost: says so and what is left, and has the mesh founded anew from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chorus.election import policy
from chorus.election.departing import Span
from chorus.election.departures import Departures
from chorus.election.neighbours import Neighbours
from chorus.election.peers import Last, Peers
from chorus.hub import Hub, HubError, HubInvalid, HubNoMesh, HubRefused, Member, RaftStatus
from chorus.process import Process
from chorus.process.departure import Departure
from chorus.table.reader import TableReader

# Members that are asked how long their log is; more do not say more.
ASKED_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Log:
    """How far the log of a member goes: its last entry, and that entry's term."""

    peer: str
    term: int
    last: int
    applied: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What is left of the mesh: this agent's log, those of the members that answered, who can be reached, and
    the voters that cannot, when the others are too few without them.
    """

    status: RaftStatus
    own: Log
    others: list[Log]
    reached: set[str]
    lost: list[str]

    @property
    def needed(self) -> bool:
        """Whether the mesh cannot go on by itself."""
        return self.status.leader is None and bool(self.lost)

    @property
    def longest(self) -> Log:
        """The log that goes furthest."""
        return longest([self.own, *self.others], self.own.peer)


def longest(logs: Sequence[Log], own: str) -> Log:
    """The log with the newest last entry, as elections compare them; of equals this agent's own."""
    return max(logs, key=lambda log: (log.term, log.last, log.peer == own, log.peer))


def unreached(members: Collection[Member], reached: Collection[str]) -> list[str]:
    """The voters out of reach, when they are so many that the others cannot choose a leader; else none."""
    voters = [member.peer for member in members if member.voter]
    away = [peer for peer in voters if peer not in reached]
    return away if len(voters) - len(away) < len(voters) // 2 + 1 else []


class Recovering:
    """Watches for lost voters; answers `recovery` and `recover`."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        peers: Peers,
        neighbours: Neighbours,
        departures: Departures,
        reader: TableReader,
        changing: asyncio.Lock,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._hub, self._peers, self._neighbours = process, hub, peers, neighbours
        self._departures = departures
        self._reader, self._changing, self._clock = reader, changing, clock
        self._without = Span()
        self._without_s = 0.0
        self._lost: list[str] = []

    def look(self, status: RaftStatus) -> None:
        """Notes whether too few voters are in reach; called at every beat."""
        reached = {self._hub.peer_id, *self._neighbours.own_members}
        lost = [] if status.leader is not None else unreached(status.members, reached)
        self._without_s = self._without.see(bool(lost), self._clock())
        self._lost = lost

    def problem(self, status: RaftStatus) -> str:
        """What is lost and what to do, once it has lasted; "" while all may be well."""
        if status.settings is None or not self._lost:
            return ""
        if self._without_s < policy.Patience.of(status.settings).away_s:
            return ""
        voters = sum(member.voter for member in status.members)
        names = ", ".join(self._name(peer) for peer in self._lost)
        return (
            f"mesh {status.mesh} has no leader and cannot choose one: {len(self._lost)} of its {voters} "
            f"voters cannot be reached: {names}. Start them again with their data folders; if they are lost "
            "for good, chorusctl members recover goes on with what this agent has"
        )

    async def plan(self) -> dict[str, Any]:
        """`recovery`: who is lost, who can be reached, whose log goes furthest. `mesh` is None in none."""
        return self._shown_plan(await self._survey())

    async def recover(self, mesh: str, *, force: bool) -> Departure:
        """`recover`: this agent founds a mesh that goes on from `mesh`, the one that the plan named.

        Raises HubInvalid for another mesh, and HubRefused while the mesh can go on by itself, or when another
        member that can be reached has more of the log (unless with `force`).
        """
        found = await self._survey()
        if found.status.mesh is None:
            raise HubNoMesh(self._why(found))
        if mesh != found.status.mesh:
            raise HubInvalid(f"mesh: this agent is in mesh {found.status.mesh}; look at the plan again")
        if not found.needed:
            raise HubRefused(self._why(found))
        if found.longest is not found.own and not force:
            raise HubRefused(
                f"{self._name(found.longest.peer)} has more of the log than this agent: recover there, so "
                "that nothing is lost; with force this agent goes on with what it has"
            )
        async with self._changing:
            self._departures.check_stays()
            status = await self._hub.raft_status()
            if status.mesh != mesh or status.leader is not None:
                raise HubRefused(f"mesh {mesh} has a leader now: look at the plan again")
            why = f"a majority of the voters of mesh {mesh} is lost, and this agent goes on with what it has"
            departure = Departure(kind="recover", mesh=mesh, why=why)
            await self._departures.leave(departure)
            return departure

    async def _survey(self) -> Survey:
        status = await self._hub.raft_status()
        me = self._hub.peer_id
        connected = {str(peer["peer"]) for peer in (await self._hub.net_state())["peers"]}
        peers = [member.peer for member in status.members if member.peer in connected and member.peer != me]
        answers = await asyncio.gather(*(self._last(peer) for peer in peers[:ASKED_MAX]))
        reached, others = {me, *peers}, list[Log]()
        for peer, said in zip(peers, answers, strict=False):
            if said is not None and said.mesh != status.mesh:
                reached.discard(peer)  # it is in another mesh now
            elif said is not None:
                others.append(Log(peer, said.term, said.last, said.applied))
        own = Log(me, status.last_term, status.last, self._reader.applied())
        return Survey(status, own, others, reached, unreached(status.members, reached))

    async def _last(self, peer: str) -> Last | None:
        try:
            return await self._peers.last(peer)
        except HubError as error:
            self._process.log.info("a member does not say how long its log is", peer=peer, error=str(error))
            return None

    def _shown_plan(self, found: Survey) -> dict[str, Any]:
        status = found.status
        present = {member.peer: member.present for member in self._reader.members()}
        return {
            "mesh": status.mesh,
            "leader": None if status.leader is None else self._name(status.leader),
            "needed": found.needed,
            "voters": [
                {
                    "agent_id": self._name(member.peer),
                    "peer": member.peer,
                    "present": present.get(member.peer, True),
                    "reachable": member.peer in found.reached,
                }
                for member in status.members
                if member.voter
            ],
            "reachable": [self._shown(log) for log in found.others],
            "longest": self._name(found.longest.peer),
            "this": self._shown(found.own),
            "why": self._why(found),
        }

    def _why(self, found: Survey) -> str:
        mesh, leader = found.status.mesh, found.status.leader
        if mesh is None:
            return "this agent is in no mesh: there is nothing to recover"
        if leader is not None:
            return f"mesh {mesh} has a leader, {self._name(leader)}: there is nothing to recover"
        if not found.lost:
            return f"a majority of the voters of mesh {mesh} can be reached: it chooses a leader by itself"
        names = ", ".join(map(self._name, found.lost))
        return (
            f"mesh {mesh} cannot choose a leader without {names}. Recover it only if they are lost for good: "
            "what they alone had is given up, and if they come back, they join the new mesh as new members"
        )

    def _shown(self, log: Log) -> dict[str, Any]:
        return {
            "agent_id": self._name(log.peer),
            "peer": log.peer,
            "last": log.last,
            "term": log.term,
            "applied": log.applied,
        }

    def _name(self, peer: str) -> str:
        if peer == self._hub.peer_id:
            return self._process.settings.agent_id
        return self._reader.name_of(peer)

"""Asks connected peers for their meshes: which other meshes there are, who is still of this agent's own, and
whether the own one has removed this agent. What follows from it is decided in `departing`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from chorus.election.departing import Other
from chorus.election.peers import Info, Peers
from chorus.hub import Hub, HubError, RaftStatus
from chorus.process import Process

# More are not asked in one look; those left are asked in the next.
ASKED_MAX: Final = 32


class Neighbours:
    """What peers with the cluster secret have said of their meshes, as long as they are connected."""

    def __init__(
        self, process: Process, hub: Hub, peers: Peers, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._process, self._hub, self._peers, self._clock = process, hub, peers, clock
        self._said: dict[str, Info] = {}
        # Since when each other mesh has been met.
        self._since: dict[str, float] = {}
        self._connected: set[str] = set()
        self._own: str | None = None
        self._members: set[str] = set()
        self._next = 0
        # Who says, with a proof, that this agent was removed; "" for nobody.
        self.removed_by = ""

    @property
    def others(self) -> list[Other]:
        """The meshes besides this agent's own that members of are connected, by id."""
        now, found = self._clock(), []
        for mesh, since in sorted(self._since.items()):
            said = [info for info in self._said.values() if info.mesh == mesh]
            found.append(
                Other(
                    mesh,
                    lone=all(info.lone for info in said),
                    leader=any(info.leader for info in said),
                    # One that has it from a recovery knows that entries are still being brought in.
                    accepting=all(info.accepting for info in said),
                    recovers=frozenset(old for info in said for old in info.recovers),
                    met_s=now - since,
                )
            )
        return found

    @property
    def own_members(self) -> set[str]:
        """The connected members that are of this agent's mesh, as far as is known: one that has not answered
        may be.
        """
        return {
            peer
            for peer in self._connected & self._members
            if not self._peers.is_stranger(peer)
            and (peer not in self._said or self._said[peer].mesh == self._own)
        }

    @property
    def all_members(self) -> bool:
        """Whether every connected peer is a member of this agent's own mesh, as its log lists them."""
        return self._connected <= self._members

    async def look(self, status: RaftStatus, *, suspicious: bool) -> None:
        """Asks once, all at the same time. With `suspicious` it asks members too, and whether they list this
        agent.
        """
        self._own, self._members = status.mesh, {member.peer for member in status.members}
        self._connected = {str(peer["peer"]) for peer in (await self._hub.net_state())["peers"]}
        self._peers.forget_all_but(self._connected)
        wanted = self._connected if suspicious else self._connected - self._members
        asked = sorted(peer for peer in wanted if not self._peers.is_stranger(peer))
        for gone in set(self._said) - set(asked):
            del self._said[gone]
        if len(asked) > ASKED_MAX:
            self._next = (self._next + ASKED_MAX) % len(asked)
            asked = (asked[self._next :] + asked[: self._next])[:ASKED_MAX]
        self.removed_by = ""
        async with asyncio.TaskGroup() as group:
            for peer in asked:
                group.create_task(self._ask(peer, status, suspicious))
        self._note(info.mesh for info in self._said.values())

    async def _ask(self, peer: str, status: RaftStatus, suspicious: bool) -> None:
        mesh = status.mesh or ""
        try:
            # A challenge would do for the proof as well, but who asks for one is expected to join.
            if suspicious or not self._peers.is_holder(peer):
                standing = await self._peers.standing(peer, mesh, status.raft_id)
                if standing.removed and standing.mesh == mesh:
                    self.removed_by = peer
            self._said[peer] = await self._peers.info(peer)
        except HubError as error:
            self._process.log.debug("a peer does not say its mesh", peer=peer, error=str(error))
            # What it said before may be so no longer.
            self._said.pop(peer, None)

    def _note(self, meshes: Iterable[str | None]) -> None:
        now = self._clock()
        others = {mesh for mesh in meshes if mesh is not None and mesh != self._own}
        self._since = {mesh: self._since.get(mesh, now) for mesh in others}

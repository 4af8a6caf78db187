"""Finds out whether connected peers are in another mesh with the same cluster secret, and says so.

Two such meshes share one network and hear each other's tasks; this version does not merge them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from chorus.election.peers import Peers
from chorus.hub import Hub, HubError
from chorus.process import Process

# A second mesh is to be told within seconds; peers that are no members of ours are few.
LOOK_EVERY_S: Final = 1.0
# More are not asked in one look; those left are asked in the next.
ASKED_MAX: Final = 32


class Neighbours:
    """Asks peers that are not members for their mesh. `others` are the meshes besides our own."""

    def __init__(self, process: Process, hub: Hub, peers: Peers, met: Callable[[], None]) -> None:
        self._process, self._hub, self._peers, self._met = process, hub, peers, met
        # The other mesh of each peer that has one.
        self._mesh_of: dict[str, str] = {}
        self._told: set[str] = set()
        self._next = 0

    @property
    def others(self) -> set[str]:
        """Ids of other meshes whose members are connected now."""
        return set(self._mesh_of.values())

    def explain(self, mesh: str | None) -> str:
        """What is wrong and what to do, for people."""
        return (
            f"this agent is in mesh {mesh} and meets mesh {', '.join(sorted(self.others))} with the same "
            "cluster secret; meshes do not merge in this version: stop one of them, or give one a "
            "CHORUS_CLUSTER_SECRET of its own"
        )

    async def run(self) -> None:
        """Looks until cancelled; begun once this agent is in a mesh."""
        while True:
            try:
                await self.look()
            except HubError as error:
                self._process.log.debug("the peers' meshes were not looked at", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Asks once, all at the same time."""
        status = await self._hub.raft_status()
        members = {member.peer for member in status.members}
        connected = {str(peer["peer"]) for peer in (await self._hub.net_state())["peers"]}
        self._peers.forget_all_but(connected)
        others = sorted(peer for peer in connected - members if not self._peers.is_stranger(peer))
        for gone in set(self._mesh_of) - set(others):
            del self._mesh_of[gone]
        if len(others) > ASKED_MAX:
            self._next = (self._next + ASKED_MAX) % len(others)
            others = (others[self._next :] + others[: self._next])[:ASKED_MAX]
        async with asyncio.TaskGroup() as group:
            for peer in others:
                group.create_task(self._ask(peer, status.mesh))
        if new := self.others - self._told:
            # Few: only holders of the cluster secret are believed.
            self._told |= new
            self._process.log.warning("two meshes", detail=self.explain(status.mesh))
            self._met()

    async def _ask(self, peer: str, mine: str | None) -> None:
        try:
            mesh = await self._peers.mesh_of(peer)
        except HubError:
            return
        if mesh is None or mesh == mine:
            # The same mesh: it has just joined, and this agent does not list it yet.
            self._mesh_of.pop(peer, None)
        else:
            self._mesh_of[peer] = mesh

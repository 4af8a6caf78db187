"""Removes a member by hand, through whichever agent the person asks: the leader does it."""

from __future__ import annotations

from typing import Any, Final

from chorus.election.duties import Duties
from chorus.election.peers import PEER_SERVICE
from chorus.hub import Hub, HubInvalid, HubNoLeader, HubNotFound, HubRefused, Request
from chorus.table.reader import TableReader

# Two changes of members: its vote, and the member itself.
REMOVE_TIMEOUT_S: Final = 25.0
ID_MAX_CHARS: Final = 128


class Removing:
    """Answers `remove`."""

    def __init__(self, hub: Hub, duties: Duties, reader: TableReader) -> None:
        self._hub, self._duties, self._reader = hub, duties, reader

    async def remove(self, request: Request) -> dict[str, Any]:
        """`remove` {id, force?} -> {peer, agent_id}; `id` is an agent id or a peer id.

        Raises what `Duties.remove` raises, HubNotFound for an id that nobody has, and HubNoLeader.
        """
        wanted, force = request.head.get("id"), request.head.get("force", False)
        if not isinstance(wanted, str) or not 0 < len(wanted) <= ID_MAX_CHARS:
            raise HubInvalid("id: give an agent id or a peer id")
        if not isinstance(force, bool):
            raise HubInvalid("force: give true or false")
        status = await self._hub.raft_status()
        listed = {member.peer for member in status.members}
        peer, name = self._find(wanted, listed)
        if status.leader is None:
            raise HubNoLeader("the mesh has no leader now, and nobody is removed without one")
        if status.leader == self._hub.peer_id:
            await self._duties.remove(peer, force=force)
        else:
            head = {"peer": peer, "force": force}
            await self._hub.request(status.leader, PEER_SERVICE, "remove", head, timeout=REMOVE_TIMEOUT_S)
        return {"peer": peer, "agent_id": name}

    def _find(self, wanted: str, listed: set[str]) -> tuple[str, str]:
        """(peer id, agent id) of the member meant. A name that several have stands for none of them."""
        named = [m for m in self._reader.members() if wanted in (m.peer, m.agent_id) and m.peer in listed]
        if len(named) > 1:
            which = ", ".join(f"{m.peer} ({'present' if m.present else 'away'})" for m in named)
            raise HubRefused(f"several members are called {wanted}; give the peer id of one: {which}")
        if named:
            return named[0].peer, named[0].agent_id or named[0].peer
        if wanted in listed:
            return wanted, wanted
        raise HubNotFound(f"the mesh lists no member {wanted}")

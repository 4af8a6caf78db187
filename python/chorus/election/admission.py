"""The peer service `mesh`: says which mesh this agent is in and, on the leader, takes agents in."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from chorus.election.search import Search
from chorus.hub import Hub, HubInvalid, HubRefused, HubUnavailable, Request
from chorus.license.gate import DEV_AGENTS_MAX
from chorus.process import Process

# Changes of members go one at a time; who comes meanwhile waits its turn.
JOIN_TIMEOUT_S = 15.0


class Admission:
    """Answers `info` and `join`. Offered only once this process knows whether it is in a mesh."""

    def __init__(self, process: Process, hub: Hub, search: Search) -> None:
        self._process, self._hub, self._search = process, hub, search
        # Shared with the leader's changes of votes.
        self.changing = asyncio.Lock()

    async def serve(self, request: Request) -> dict[str, Any]:
        """The handler of the service."""
        if request.method == "info":
            return await self._info()
        if request.method == "join":
            return await self._join(request)
        raise HubInvalid(f"mesh has no method {request.method!r}")

    async def _info(self) -> dict[str, Any]:
        status = await self._hub.raft_status()
        if status.mesh is None and self._search.founding:
            raise HubUnavailable("founding a mesh right now; ask again")
        return {
            "mesh": status.mesh,
            "leader": status.leader,
            "members": len(status.members),
            "agent_id": self._process.settings.agent_id,
            "peer": self._hub.peer_id,
            "none_since": self._search.since_ms if status.mesh is None else None,
        }

    async def _join(self, request: Request) -> dict[str, Any]:
        if request.peer is None:
            raise HubInvalid("only another agent joins")
        head = request.head
        self._check_licence(str(head.get("licence") or ""))
        status = await self._hub.raft_status()
        if status.mesh is None:
            raise HubUnavailable("this agent is in no mesh itself")
        if status.role != "leader":
            return {"leader": status.leader, "addrs": await self._addresses(status.leader)}
        async with self.changing:
            status = await self._hub.raft_status()
            listed = {member.peer for member in status.members}
            if request.peer not in listed and len(listed) >= DEV_AGENTS_MAX:
                raise HubRefused(f"the licence allows {DEV_AGENTS_MAX} agents, and the mesh has them")
            body = {"agent_id": str(head.get("agent_id") or "")[:64], "licence": "dev"}
            added = await self._hub.raft_add(request.peer, body, timeout=JOIN_TIMEOUT_S)
            status = await self._hub.raft_status()
        self._process.log.info("took an agent in", peer=request.peer, agent=body["agent_id"])
        return {
            "mesh": status.mesh,
            "raft_id": added.raft_id,
            "founding": added.founding,
            "members": [[member.raft_id, member.peer] for member in status.members],
        }

    def _check_licence(self, licence: str) -> None:
        settings = self._process.settings
        if not hmac.compare_digest(licence.encode(), settings.license_id.encode()):
            # The other's licence is not repeated: a refusal must not tell one agent the licence of another.
            raise HubRefused("the agent's licence is not this mesh's")

    async def _addresses(self, peer: str | None) -> list[str]:
        state = await self._hub.net_state()
        found = next((item for item in state["peers"] if item["peer"] == peer), None)
        return [str(address) for address in found["addrs"]] if found is not None else []

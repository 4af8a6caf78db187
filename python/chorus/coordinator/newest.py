"""Catching up with the mesh: what one agent has acknowledged, any other can then find in its own table."""

from __future__ import annotations

import asyncio
from typing import Any

from chorus.coordinator import SERVICE
from chorus.coordinator.barrier import Barrier
from chorus.coordinator.follower import Follower
from chorus.hub import Hub, HubNoLeader, HubTimeout, Request

# A leader that is there answers within milliseconds.
ASK_TIMEOUT_S = 2.0


class Newest:
    """Asks the leader how far the log is committed, and waits until the table here is as far."""

    def __init__(self, hub: Hub, follower: Follower, proofs: Barrier) -> None:
        self._hub, self._follower = hub, follower
        self._proofs = proofs
        self._asking = Barrier(self._ask)

    async def index(self, request: Request) -> dict[str, Any]:
        """`table.index` -> {index}: on the leader; everything committed before the call is at or below it."""
        return {"index": await self._proofs.wait()}

    async def reach(self, request: Request) -> dict[str, Any]:
        """`table.reach` -> {index}: answers when this table has everything committed before the call."""
        return {"index": await self.caught_up(request.timeout)}

    async def caught_up(self, timeout: float) -> int:
        """Returns when this table has everything committed before the call: up to which index.

        `timeout` is in seconds. Raises HubTimeout, HubNoLeader.
        """
        try:
            async with asyncio.timeout(timeout):
                index = await self._asking.wait()
                await self._follower.reached(index)
        except TimeoutError:
            raise HubTimeout("the table here is not as far as the mesh's log yet") from None
        return index

    async def _ask(self) -> int:
        leader = (await self._hub.raft_status()).leader
        if leader is None:
            raise HubNoLeader("the mesh has no leader to ask how far its log is")
        if leader == self._hub.peer_id:
            return await self._proofs.wait()
        reply = await self._hub.request(leader, SERVICE, "table.index", timeout=ASK_TIMEOUT_S)
        return int(reply.head["index"])

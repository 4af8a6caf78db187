"""People who read along: through the agent of one, a member without a model can answer a plan.

Who reads says so again and again to its agent, which owners of plans ask before they choose participants.
"""

from __future__ import annotations

import asyncio
from typing import Final

from chorus.coordinator import SERVICE
from chorus.coordinator.hmmm.room import Goal, Room
from chorus.hmmm.participants import PARTICIPANTS_MAX
from chorus.hub import HubError

# Whoever reads along says so more often.
READS_MS: Final = 30_000
# A member that does not answer at once has no reader, so that nobody to answer costs no time.
ASK_TIMEOUT_S: Final = 0.5


class Readers:
    """Whether a person reads along here, and at which members."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._until_ms = 0

    def read(self) -> None:
        """A person reads along here, for READS_MS from now on."""
        self._until_ms = self._room.now_ms() + READS_MS

    def here(self) -> bool:
        """Whether a person reads along through this agent."""
        return self._room.now_ms() < self._until_ms

    async def of(self, goal: Goal) -> frozenset[str]:
        """The peers at which a person reads along: this agent, and members that cannot answer otherwise."""
        asked = self._room.without_model(goal, PARTICIPANTS_MAX)
        answers = await asyncio.gather(*map(self._ask, asked))
        readers = {peer for peer, reads in zip(asked, answers, strict=True) if reads}
        return frozenset(readers | ({self._room.hub.peer_id} if self.here() else set()))

    async def _ask(self, peer: str) -> bool:
        try:
            said = await self._room.hub.request(peer, SERVICE, "hmmm.reader", {}, timeout=ASK_TIMEOUT_S)
        except HubError:
            return False
        return said.head.get("reads") is True

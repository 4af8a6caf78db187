"""Proposing entries so that they count once: repeated under one id until the outcome is known here.

All of this agent's entries go to the log from here, and so secrets are kept out of them here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from chorus.coordinator.follower import Follower
from chorus.coordinator.redaction import Redaction
from chorus.hub import (
    Hub,
    HubClosed,
    HubNoLeader,
    HubNoMesh,
    HubNotLeader,
    HubTimeout,
    HubUnavailable,
)
from chorus.wire.ids import new_id

# One try; after it the leader may be another, and the same entry is proposed again.
TRY_S = 5.0
RETRY_FIRST_S = 0.02
RETRY_MAX_S = 0.5

_AGAIN = (HubTimeout, HubNoLeader, HubNotLeader, HubClosed, HubUnavailable, HubNoMesh)


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry that was committed and applied here."""

    index: int
    accepted: bool
    reason: str
    stamp_ms: int = 0


class Proposals:
    """Proposes through the hub and waits until this agent's table has the entry: read-your-writes."""

    def __init__(self, hub: Hub, follower: Follower, redaction: Redaction) -> None:
        self._hub = hub
        self._follower = follower
        self.redaction = redaction

    async def propose(
        self, type: str, body: dict[str, Any], timeout: float, *, entry_id: str | None = None
    ) -> Settled:
        """What came of the entry.

        Raises HubInvalid when a name in it holds a secret, HubError while the table here cannot be written,
        and HubTimeout when that, or the deadline, comes first; its outcome is then unknown.
        """
        self._follower.check()
        body = self.redaction.entry(type, body)
        ident = entry_id or new_id()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        wait = RETRY_FIRST_S
        future = self._follower.expect(ident)
        try:
            while True:
                left = deadline - loop.time()
                try:
                    proposed = await self._hub.propose(
                        type, body, entry_id=ident, timeout=max(0.05, min(TRY_S, left))
                    )
                    break
                except _AGAIN:
                    if future.done():
                        return self._settled(await future)
                    if loop.time() + wait >= deadline:
                        raise
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_MAX_S)
            if not future.done() and proposed.index <= self._follower.store.applied:
                # Applied before this call: an earlier try with this id had been committed.
                known = self._follower.known(ident)
                if known is not None:
                    return Settled(known.idx, known.accepted, known.reason)
            try:
                async with asyncio.timeout_at(deadline):
                    return self._settled(await future)
            except TimeoutError:
                raise HubTimeout(f"entry {proposed.index} is committed, not yet applied here") from None
        finally:
            self._follower.forget(ident, future)

    @staticmethod
    def _settled(applied: Any) -> Settled:
        outcome, entry = applied.outcome, applied.entry
        return Settled(entry.index, outcome.accepted, outcome.reason, entry.stamp_ms)

"""Proposing entries so that they count once: repeated under one id until the outcome is known here.

All of this agent's entries go to the log from here, and so secrets are kept out of them here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.redaction import Redaction
from chorus.hub import (
    Hub,
    HubClosed,
    HubNoLeader,
    HubNoMesh,
    HubNotLeader,
    HubTimeout,
    HubUnavailable,
    Proposed,
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


def _look(proposing: asyncio.Future[Proposed]) -> None:
    """An error that nobody waits for any more is no news."""
    if not proposing.cancelled():
        proposing.exception()


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
        deadline = asyncio.get_running_loop().time() + timeout
        applied = self._follower.expect(ident)
        try:
            index = await self._commit(type, body, ident, deadline, applied)
            if not applied.done() and index <= self._follower.store.applied:
                # Applied before this call: an earlier try with this id had been committed.
                known = self._follower.known(ident)
                if known is not None:
                    return Settled(known.idx, known.accepted, known.reason)
            try:
                async with asyncio.timeout_at(deadline):
                    return self._settled(await applied)
            except TimeoutError:
                raise HubTimeout(f"entry {index} is committed, not yet applied here") from None
        finally:
            self._follower.forget(ident, applied)

    async def _commit(
        self, type: str, body: dict[str, Any], ident: str, deadline: float, applied: asyncio.Future[Applied]
    ) -> int:
        """Proposes until the entry is committed. Its index, or 0 when `applied` was done before the leader's
        answer came: what is applied here is committed.
        """
        loop = asyncio.get_running_loop()
        wait = RETRY_FIRST_S
        while not applied.done():
            within = max(0.05, min(TRY_S, deadline - loop.time()))
            proposing = asyncio.ensure_future(self._hub.propose(type, body, entry_id=ident, timeout=within))
            proposing.add_done_callback(_look)
            try:
                await asyncio.wait((proposing, applied), return_when=asyncio.FIRST_COMPLETED)
                if not applied.done():
                    return proposing.result().index
            except _AGAIN:
                if loop.time() + wait >= deadline:
                    raise
                await asyncio.wait((applied,), timeout=wait)
                wait = min(wait * 2, RETRY_MAX_S)
            finally:
                # An answer that is on its way costs less than to take the call back.
                if not applied.done():
                    proposing.cancel()
        return 0

    @staticmethod
    def _settled(applied: Any) -> Settled:
        outcome, entry = applied.outcome, applied.entry
        return Settled(entry.index, outcome.accepted, outcome.reason, entry.stamp_ms)

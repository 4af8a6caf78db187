"""The lease of an attempt: renewed with the leader, counted on a clock that also runs while the machine
sleeps.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

from chorus.hub import Hub, HubError
from chorus.table.reader import TableReader

# A leader that is changing answers no renewal; asked again this soon.
_RETRY_S = 1.0


def boottime() -> float:
    """Seconds since the machine started, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """Renews until told to stop. `granted_at` is when the acknowledged claim or renewal was sent."""

    def __init__(
        self,
        hub: Hub,
        table: TableReader,
        task_id: str,
        attempt: int,
        mesh: str,
        lease_s: float,
        granted_at: float,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._hub = hub
        self._table = table
        self._head = {"task_id": task_id, "attempt": attempt, "mesh": mesh}
        self._lease_s = lease_s
        self._granted_at = granted_at
        self._clock = clock

    async def keep(self) -> str:
        """Renews every third of a lease; returns why the attempt must stop, when it must."""
        wait = self._lease_s / 3
        while True:
            left = self._granted_at + self._lease_s - self._clock()
            if left <= 0:
                return f"out of touch with the leader for a lease ({self._lease_s:g} s)"
            await asyncio.sleep(min(wait, left))
            sent = self._clock()
            left = self._granted_at + self._lease_s - sent
            if left <= 0:
                continue
            refused = await self._renew(left)
            if refused is None:
                wait = min(_RETRY_S, self._lease_s / 6)
            elif refused:
                return refused
            else:
                self._granted_at = sent
                wait = self._lease_s / 3

    async def _renew(self, timeout_s: float) -> str | None:
        """ "" when acknowledged, the reason when refused, None when nobody could say."""
        try:
            mesh = self._table.mesh()
            leader = (await self._hub.raft_status()).leader or (mesh.leader if mesh else None)
            if leader is None:
                return None
            reply = await self._hub.request(
                leader,
                "coordinator",
                "renew",
                self._head,
                timeout=max(0.1, min(timeout_s, self._lease_s / 3)),
            )
        except sqlite3.Error:
            return None
        except HubError as error:
            return f"the mesh took the attempt back: {error.message}" if error.code == "refused" else None
        if reply.head.get("accepted", True):
            return ""
        return f"the mesh took the attempt back: {reply.head.get('reason', '')}"

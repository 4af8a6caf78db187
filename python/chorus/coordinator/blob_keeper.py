"""Removes blobs that nobody needs: uploads that no task named in time, and those of tasks long finished.

What a blob takes is counted by `chorus.blobs`; this decides what goes, from what the table says.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from chorus.blobs import BlobStore
from chorus.blobs.ledger import OWN, Kept
from chorus.coordinator.follower import Follower
from chorus.hub import Hub, HubError
from chorus.process import Process
from chorus.table.reader import TableReader
from chorus.table.rows import BlobUse

SWEEP_S: Final = 600.0
# A submission that is under way names its blobs long before this; so does one that is repeated.
UNNAMED_MS: Final = 60 * 60 * 1000
# Beyond this part of a limit, sources of finished tasks go before their time, the oldest first.
PRESSURE: Final = 0.75


def removable(
    unused: Iterable[Kept],
    uses: Mapping[str, BlobUse | None],
    *,
    now_ms: int,
    retention_ms: int,
    used_bytes: Mapping[str, int],
    total_max_bytes: int,
    member_max_bytes: int,
) -> list[str]:
    """Which of the blobs that were not used lately may go. Pure."""
    used = dict(used_bytes)
    going: list[str] = []
    finished: list[tuple[int, Kept]] = []
    for blob in unused:
        use = uses[blob.sha256]
        if use is None or (not use.unfinished and now_ms - use.finished_at >= retention_ms):
            going.append(blob.sha256)
            used[blob.owner] = used.get(blob.owner, 0) - blob.bytes
        elif not use.unfinished and now_ms - use.finished_at >= UNNAMED_MS:
            finished.append((use.finished_at, blob))
    for _, blob in sorted(finished, key=lambda item: item[0]):
        crowded = sum(used.values()) > PRESSURE * total_max_bytes
        greedy = blob.owner != OWN and used.get(blob.owner, 0) > PRESSURE * member_max_bytes
        if crowded or greedy:
            going.append(blob.sha256)
            used[blob.owner] = used.get(blob.owner, 0) - blob.bytes
    return going


class BlobKeeper:
    """Looks now and then, on every agent for its own disk."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        blobs: BlobStore,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._process, self._hub, self._follower, self._blobs = process, hub, follower, blobs
        self._reader = TableReader(follower.store.path)
        self._wall_ms = wall_ms

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except (HubError, OSError, sqlite3.Error) as error:
                self._process.log.warning("blobs were not looked through; later", error=str(error))

    async def sweep(self) -> list[str]:
        """Removes what may go; returns the hashes."""
        status = await self._hub.raft_status()
        # A table that lags, or is being made anew, does not know what names a blob.
        if status.mesh is None or status.leader is None or self._follower.store.applied < status.commit:
            return []
        # Nor does one into which the tasks of an earlier mesh are still being brought.
        if self._process.settings.paths.carried.exists():
            return []
        gone = await asyncio.to_thread(self._sweep)
        if gone:
            self._process.log.info("removed blobs that nobody needs", count=len(gone))
        return gone

    def _sweep(self) -> list[str]:
        ledger, now = self._blobs.ledger, self._wall_ms()
        before = now - UNNAMED_MS
        unused = ledger.unused_since(before)
        going = removable(
            unused,
            {blob.sha256: self._reader.blob_use(blob.sha256) for blob in unused},
            now_ms=now,
            retention_ms=int(self._process.settings.retention_s * 1000),
            used_bytes=ledger.used_bytes(),
            total_max_bytes=ledger.total_max_bytes,
            member_max_bytes=ledger.member_max_bytes,
        )
        # One that is named at this moment has been touched, and stays.
        return [sha256 for sha256 in going if ledger.remove(self._blobs.path(sha256), before)]

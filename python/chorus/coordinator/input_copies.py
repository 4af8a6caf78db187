"""The second copy of the blobs that tasks are submitted with: their sources and standard input."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from chorus.blobs import BlobStore
from chorus.blobs.copies import Copies, Part
from chorus.blobs.exchange import push
from chorus.coordinator.follower import Follower
from chorus.hub import Hub
from chorus.process import Process
from chorus.table.reader import TableReader


class InputCopies:
    """On every agent, for the blobs on its own disk."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        blobs: BlobStore,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._hub, self._blobs, self._wall_ms = hub, blobs, wall_ms
        self._retention_ms = int(process.settings.retention_s * 1000)
        self._reader = TableReader(follower.store.path)
        self.copies = Copies(hub, follower.store.path, process.log, self._here, self._send)

    def _here(self, reader: TableReader) -> Iterator[Part]:
        """The tasks all of whose inputs lie here: open ones, and those that may still be tried again."""
        now = self._wall_ms()
        seen: set[str] = set()
        for sha256 in self._blobs.ledger.all():
            for task_id in reader.held.tasks_with_input(sha256):
                if task_id in seen:
                    continue
                seen.add(task_id)
                end = reader.task_end(task_id)
                ended = end is None or end.removed_at is not None
                if end is not None and end.finished_at is not None:
                    ended = ended or now - end.finished_at >= self._retention_ms
                if not ended and all(map(self._blobs.has, reader.held.inputs(task_id).values())):
                    yield Part(task_id)

    async def _send(self, part: Part, peer: str) -> None:
        for sha256 in (await asyncio.to_thread(self._reader.held.inputs, part.task_id)).values():
            await push(self._hub, self._blobs, sha256, peer)

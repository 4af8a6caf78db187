"""The run that a goal continues: its patch and what it said, from the members that hold them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from chorus.archives.errors import ArchiveRefused
from chorus.executor.goal import transcript
from chorus.executor.goal.last_steps import last_steps
from chorus.executor.patch import PATCH_BYTES_MAX
from chorus.hub import Hub, HubError, HubUnavailable
from chorus.table.reader import TableReader

PATCH_FILE: Final = "patch.diff"
_FETCH_S: Final = 60.0
# Of what the next model is told: all of it, and how the run ended.
_SUMMARY_CHARS: Final = 6_000
_ENDED_CHARS: Final = 3_000
_STEPS: Final = "\nIts last steps:\n"
# The end of a transcript that its last steps are read from, and how long it may take to come.
_TAIL_BYTES: Final = 256 * 1024
_TAIL_S: Final = 30.0
# With what tells of the end, for which a full one has room.
_TRANSCRIPT_BYTES_MAX: Final = transcript.BYTES_MAX + transcript.PAGE_BYTES


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What an ended run left for the next."""

    patch: bytes
    summary: str


class EarlierRuns:
    """Finds ended runs. One per process."""

    def __init__(self, hub: Hub, table: TableReader) -> None:
        self._hub = hub
        self._table = table

    async def find(self, task_id: str) -> EarlierRun:
        """Raises ArchiveRefused where the task cannot be continued, HubError where its patch is away now."""
        row = self._table.task(task_id)
        if row is None:
            raise ArchiveRefused(f"continues: this mesh knows no task {task_id}")
        result = row.result or {}
        report = result.get("goal")
        if row.open or not isinstance(report, dict):
            what = "has not ended" if row.open else "was no goal, or left no result"
            raise ArchiveRefused(f"continues: task {task_id} {what}")
        said = [f"It ended as {row.state} ({result.get('ended_by', '')}). {row.reason}".strip()]
        said.append(str(result.get("summary") or ""))
        summary = "\n".join(part for part in said if part)[:_ENDED_CHARS]
        tail = await self._tail(task_id, row.attempt, report.get("transcript_sha256"))
        if steps := last_steps(tail, _SUMMARY_CHARS - len(summary) - len(_STEPS)):
            summary += _STEPS + steps
        patch = report.get("patch")
        if not isinstance(patch, dict) or not patch.get("size"):
            return EarlierRun(b"", summary)
        return EarlierRun(await self._patch(task_id, row.attempt, patch), summary)

    async def _patch(self, task_id: str, attempt: int, named: dict[str, Any]) -> bytes:
        head = {"task_id": task_id, "attempt": attempt, "path": PATCH_FILE}
        why = "nobody is known to hold it"
        for peer in self._peers(task_id, attempt):
            try:
                opening = self._hub.open_stream("output", "artifact", head, peer=peer, timeout=_FETCH_S)
                async with await opening as stream:
                    data = await stream.read_all(PATCH_BYTES_MAX)
            except HubError as error:
                why = error.message
                continue
            if hashlib.sha256(data).hexdigest() == named.get("sha256"):
                return data
            why = "what a holder sent is not what the result names"
        raise HubUnavailable(f"the patch of task {task_id} cannot be had: {why}")

    async def _tail(self, task_id: str, attempt: int, sha256: object) -> bytes:
        """The end of the run's transcript; nothing where nobody gives what the result names in time."""
        head = {"task_id": task_id, "attempt": attempt, "path": transcript.FILE}
        try:
            async with asyncio.timeout(_TAIL_S):
                for peer in self._peers(task_id, attempt) if sha256 else ():
                    digest, size, kept = hashlib.sha256(), 0, bytearray()
                    try:
                        opening = self._hub.open_stream(
                            "output", "artifact", head, peer=peer, timeout=_TAIL_S
                        )
                        async with await opening as stream:
                            async for chunk in stream:
                                if (size := size + len(chunk)) > _TRANSCRIPT_BYTES_MAX:
                                    break
                                digest.update(chunk)
                                kept += chunk
                                if len(kept) > 2 * _TAIL_BYTES:
                                    del kept[:-_TAIL_BYTES]
                    except HubError:
                        continue
                    if digest.hexdigest() == sha256:
                        return bytes(kept[-_TAIL_BYTES:])
        except TimeoutError:
            pass
        return b""

    def _peers(self, task_id: str, attempt: int) -> Iterator[str | None]:
        """The members that hold what an attempt left; None is this one."""
        for holder in self._table.held.holders(task_id, attempt):
            yield None if holder.peer == self._hub.peer_id else holder.peer

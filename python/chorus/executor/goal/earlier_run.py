"""The run that a goal continues: its patch and what it said, from the members that hold them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from chorus.archives.errors import ArchiveRefused
from chorus.executor.patch import PATCH_BYTES_MAX
from chorus.hub import Hub, HubError, HubUnavailable
from chorus.table.reader import TableReader

PATCH_FILE: Final = "patch.diff"
_FETCH_S: Final = 60.0
_SUMMARY_CHARS: Final = 6_000


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
        summary = "\n".join(part for part in said if part)[:_SUMMARY_CHARS]
        patch = report.get("patch")
        if not isinstance(patch, dict) or not patch.get("size"):
            return EarlierRun(b"", summary)
        return EarlierRun(await self._patch(task_id, row.attempt, patch), summary)

    async def _patch(self, task_id: str, attempt: int, named: dict[str, Any]) -> bytes:
        head = {"task_id": task_id, "attempt": attempt, "path": PATCH_FILE}
        why = "nobody is known to hold it"
        for holder in self._table.held.holders(task_id, attempt):
            peer = None if holder.peer == self._hub.peer_id else holder.peer
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

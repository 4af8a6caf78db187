"""The list of a task's artifacts, which stands in its result or in a blob that the result names."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

import orjson

from chorus.api.context import Context
from chorus.api.problems import GONE_PREFIX
from chorus.hub import HubError
from chorus.table import view
from chorus.table.entries import ARTIFACTS_BLOB_MAX_BYTES
from chorus.table.rows import TaskRow

# A list comes from the disk of a member that holds what the task left, or of this one.
LIST_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Listing:
    """The artifacts of a task, and what was left out."""

    items: list[dict[str, Any]]
    left_out: list[dict[str, str]]


async def listing(context: Context, row: TaskRow) -> Listing:
    """What the newest result lists, in itself or by a blob. Raises HubError when the blob cannot be had."""
    blob = view.artifacts_blob(row.result)
    if blob is None or row.agent is None:
        return Listing(view.artifacts(row.result), view.left_out(row.result))
    sha256 = str(blob.get("sha256"))
    held = context.table.held.holders(row.task_id, row.attempt)
    head = {"sha256": sha256, "holders": [holder.peer for holder in held]}
    try:
        await context.hub.call_service("coordinator", "blobs.fetch", head, timeout=LIST_TIMEOUT_S)
    except HubError as error:
        age_s = time.time() - (row.finished_at or 0) / 1000
        if error.code == "not_found" and age_s >= context.settings.retention_s:
            why = f"the list of the artifacts of task {row.task_id} has gone with them (CHORUS_RETENTION)"
            raise HubError(f"{GONE_PREFIX} {why}", code="not_found") from None
        raise
    return await asyncio.to_thread(_read_listing, context, sha256)


def _read_listing(context: Context, sha256: str) -> Listing:
    path = context.blobs.path(sha256)
    try:
        if path.stat().st_size > ARTIFACTS_BLOB_MAX_BYTES:
            raise ValueError("too large")
        listed = orjson.loads(path.read_bytes())
        if not isinstance(listed, dict):
            raise ValueError("no object")
    except FileNotFoundError:
        raise HubError("the list of artifacts is not here", code="not_found") from None
    except ValueError:
        raise HubError("the list of artifacts cannot be read", code="tampered") from None
    return Listing(view.artifacts(listed), view.left_out(listed))


async def with_listing(context: Context, row: TaskRow, shown: dict[str, Any]) -> dict[str, Any]:
    """A task as the API shows it, with the list of its artifacts where that lies in a blob."""
    if view.artifacts_blob(row.result) is None:
        return shown
    try:
        listed = await listing(context, row)
    except HubError as error:
        why = f"the list cannot be had now: {error.message}"
        if error.message.startswith(GONE_PREFIX):
            why = error.message.removeprefix(GONE_PREFIX).strip()
        listed = Listing([], [{"path": "", "reason": why}])
    result = {**shown["result"], "artifacts": listed.items, "left_out": listed.left_out}
    return {**shown, "result": result}

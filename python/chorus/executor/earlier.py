"""The earlier decisions that an attempt is given: asked for beside its work, never waited for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from chorus import decisions
from chorus.hub import Hub, HubError

# The leader chooses and the records are read meanwhile; what takes longer is done without.
ASK_TIMEOUT_S = 5.0
# After the commands have ended.
WAIT_AFTER_S = 1.0
# Many small tasks at once are done without: their award must not wait for anybody's context.
AT_ONCE = 8
ITEMS_MAX = 16
# What a model is given of them.
SUMMARIES_MAX = 8
SUMMARY_CHARS = 1_000
READ_TIMEOUT_S = 3.0


class Earlier:
    """Asks for contexts, a few at a time. One per process."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._asking = 0

    async def decisions(self, task_id: str) -> list[dict[str, Any]]:
        """Address, hash, title and outcome of what matters for a task, and why; empty when nobody says."""
        if self._asking >= AT_ONCE:
            return []
        self._asking += 1
        try:
            reply = await self._hub.call_service(
                "coordinator", "context", {"task_id": task_id}, timeout=ASK_TIMEOUT_S
            )
        except HubError:
            return []
        finally:
            self._asking -= 1
        names = ("address", "hash", "title", "outcome", "why")
        items = reply.head.get("items") or ()
        return [{name: item[name] for name in names} for item in items[:ITEMS_MAX]]

    async def summaries(self, items: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
        """Address, title and summary of decisions, each record verified; those that cannot be had in time are
        left out.
        """

        async def read(item: dict[str, Any]) -> dict[str, str] | None:
            try:
                found = await decisions.fetch(self._hub, item["hash"])
            except (HubError, decisions.DecisionError):
                return None
            summary = str(found.record["summary"])[:SUMMARY_CHARS]
            return {"address": item["address"], "title": item["title"], "summary": summary}

        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                read_items = await asyncio.gather(*(read(item) for item in items[:SUMMARIES_MAX]))
        except TimeoutError:
            return []
        return [item for item in read_items if item is not None]


async def in_time(asked: asyncio.Task[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What was found until now, or a moment later."""
    await asyncio.wait((asked,), timeout=WAIT_AFTER_S)
    if not asked.done():
        asked.cancel()
        return []
    return asked.result() if asked.exception() is None else []

"""`Log`: the audit log of a running core, as a sequence to append to and read from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from chorus.hub import Hub

# Entries fetched with one call while iterating.
PAGE_ENTRIES = 256


class Log:
    """The signed append-only log of the agent behind `hub`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def append(self, type: str, data: Any) -> int:
        """Appends an entry and gives its number; durable when it returns. Secrets are redacted."""
        return await self._hub.log_append(type, data)

    async def read(self, start: int, count: int) -> list[dict[str, Any]]:
        """Entries from number `start` on, at most `count`."""
        return await self._hub.log_read(start, count)

    async def length(self) -> int:
        """How many entries there are."""
        return int((await self._hub.log_info())["length"])

    async def entries(self, start: int = 0) -> AsyncIterator[dict[str, Any]]:
        """All entries from number `start` up to the end there is now."""
        while page := await self._hub.log_read(start, PAGE_ENTRIES):
            for entry in page:
                yield entry
            start += len(page)

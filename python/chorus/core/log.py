"""`Log`: the audit log of a running core, as a sequence to append to, read, follow and verify; and the
verification of one whose agent is stopped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from os import PathLike
from typing import Any

import orjson

from chorus._core import CoreError, LogVerifier
from chorus.hub import Hub, HubClosed, LogFeed, LogPage, LogVerifyFeed

# Entries fetched with one call while iterating.
PAGE_ENTRIES = 256
# Progress reports on their way; the verification waits for who reads them.
VERIFY_QUEUE = 4
# Entries between two reports; about a tenth of a second.
STEP_ENTRIES = 20_000


class Log:
    """The signed append-only log of the agent behind `hub`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def append(self, type: str, data: Any) -> int:
        """Appends an entry and gives its number; durable when it returns. Secrets are redacted."""
        return await self._hub.log_append(type, data)

    async def read(self, start: int, count: int) -> list[dict[str, Any]]:
        """Entries from number `start` on, at most `count`, each with its number as `seq`."""
        return (await self._hub.log_read(start, count)).entries

    async def page(
        self,
        start: int | None = None,
        count: int = PAGE_ENTRIES,
        *,
        type: str | None = None,
        newest_first: bool = False,
    ) -> LogPage:
        """Entries in either order, of all types or one. A page may be short before the end."""
        return await self._hub.log_read(start, count, type=type, newest_first=newest_first)

    async def length(self) -> int:
        """How many entries there are."""
        return int((await self._hub.log_info())["length"])

    async def entries(self, start: int = 0, *, type: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """All entries from number `start` up to the end there is now."""
        length = await self.length()
        while start < length:
            page = await self._hub.log_read(start, PAGE_ENTRIES, type=type)
            for entry in page.entries:
                yield entry
            start = page.next

    def follow(self, start: int, *, type: str | None = None) -> LogFeed:
        """Entries from number `start` on and those to come, none missing."""
        return self._hub.log_follow(start, type=type)

    async def verify(self) -> AsyncIterator[dict[str, Any]]:
        """Checks every entry against the tree and the signature.

        Yields `progress` events and at last one `end`, with `genuine` and, if that is false, `error`.
        """
        async with LogVerifyFeed(self._hub, VERIFY_QUEUE) as events:
            async for event in events:
                yield event
                if event["kind"] == "end":
                    return
        raise HubClosed("the hub went away during the verification")


def verify_folder(folder: str | PathLike[str]) -> Iterator[dict[str, Any]]:
    """The same events for the log in `folder`, a data directory's `core/log`, that nobody is writing to."""
    try:
        verifier = LogVerifier.open(folder)
    except CoreError as error:
        yield {"kind": "end", "genuine": False, "error": {"code": error.code, "message": str(error)}}
        return
    while True:
        try:
            done = verifier.step(STEP_ENTRIES)
        except CoreError as error:
            failed = {"error": {"code": error.code, "message": str(error)}}
            yield {"kind": "end", "genuine": False, **orjson.loads(verifier.so_far()), **failed}
            return
        so_far = orjson.loads(verifier.so_far())
        if done:
            yield {"kind": "end", "genuine": True, **so_far}
            return
        yield {"kind": "progress", "checked": so_far["checked"], "length": so_far["length"]}

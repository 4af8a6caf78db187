"""One question for many: whoever waits gets the answer of a round that began after it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Barrier:
    """Shares a round of `ask` among all that asked while the one before was under way."""

    def __init__(self, ask: Callable[[], Awaitable[int]]) -> None:
        self._ask = ask
        self._running: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None

    async def wait(self) -> int:
        """Returns after a round that began later than this call; raises what it failed with."""
        if self._next is None:
            self._next = asyncio.create_task(self._round(self._running))
        # Shielded: one caller that gives up must not end the round of the others.
        return await asyncio.shield(self._next)

    async def _round(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait((before,))
        self._running, self._next = self._next, None
        return await self._ask()

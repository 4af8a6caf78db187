"""What waits to be sent: bounded, the oldest dropped and counted, so that nobody ever waits for telemetry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

Kind = Literal["status", "operation"]
# Some minutes of a busy agent, at about a kilobyte each.
QUEUE_MAX: Final = 1_024


class Outgoing:
    """A queue of bodies with one sender."""

    def __init__(self, dropped: Callable[[Kind], None], most: int = QUEUE_MAX) -> None:
        self._items: deque[tuple[Kind, bytes]] = deque()
        self._dropped, self._most = dropped, most
        self._some = asyncio.Event()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, kind: Kind, body: bytes) -> None:
        """Adds a body; the oldest makes room for it."""
        if len(self._items) >= self._most:
            oldest, _ = self._items.popleft()
            self.lost += 1
            self._dropped(oldest)
        self._items.append((kind, body))
        self._some.set()

    async def first(self) -> tuple[Kind, bytes]:
        """The oldest, which stays until `done`; waits for one."""
        while not self._items:
            self._some.clear()
            await self._some.wait()
        return self._items[0]

    def done(self, item: tuple[Kind, bytes]) -> None:
        """Takes off what was sent, unless it has been dropped meanwhile."""
        if self._items and self._items[0] is item:
            self._items.popleft()

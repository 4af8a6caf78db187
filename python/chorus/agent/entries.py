"""What the parent writes into the agent's signed log. The node, which holds the log, may be away meanwhile:
entries wait for it, in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from pathlib import Path
from typing import Any, Final

from chorus.hub import Hub, HubError
from chorus.process.assignments import SERVICE
from chorus.wire.log import LogType

# The oldest are left out when more wait: a node that is away for so long has other troubles.
WAITING_MAX: Final = 64
AGAIN_S: Final = 0.5


class Entries:
    """The parent's entries, each written once the node of this agent takes it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[LogType, dict[str, Any]]] = deque(maxlen=WAITING_MAX)
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    @property
    def waiting(self) -> list[tuple[LogType, dict[str, Any]]]:
        """Those that are not written yet."""
        return list(self._waiting)

    def add(self, type: LogType, data: dict[str, Any]) -> None:
        """Has an entry written."""
        self._waiting.append((type, data))
        self._some.set()
        self._none.clear()

    async def settle(self, within_s: float) -> None:
        """Returns when nothing waits any more, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._none.wait()

    async def run(self, hub_socket: Path) -> None:
        """Writes until cancelled."""
        while True:
            with contextlib.suppress(HubError):
                async with await Hub.connect(hub_socket, SERVICE) as hub:
                    await self._write(hub)
            await asyncio.sleep(AGAIN_S)

    async def _write(self, hub: Hub) -> None:
        """Raises HubError when the node takes nothing now."""
        while True:
            await self._some.wait()
            while self._waiting:
                entry = self._waiting[0]
                await hub.log_append(*entry)
                # More may have come meanwhile than there is room for.
                if self._waiting and self._waiting[0] is entry:
                    self._waiting.popleft()
            self._some.clear()
            self._none.set()

"""Entries in the agent's signed log about what its coordinator took in and decided; nobody waits for them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chorus.hub import Hub, HubError
from chorus.process import Process
from chorus.wire.log import LogType

# A disk that does not keep up must not fill the memory.
WAITING_MAX: Final = 1024


class Notes:
    """Writes entries in the background."""

    def __init__(self, process: Process, hub: Hub) -> None:
        self._process, self._hub = process, hub
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, type: LogType, data: dict[str, Any]) -> None:
        """Writes an entry soon; the table has the facts if it cannot be written."""
        if len(self._tasks) >= WAITING_MAX:
            self._process.log.warning("the log is slow; an entry was left out", type=type)
            return
        task = asyncio.create_task(self._append(type, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, type: LogType, data: dict[str, Any]) -> None:
        try:
            await self._hub.log_append(type, data)
        except HubError as error:
            self._process.log.warning("an entry of the log was not written", type=type, error=str(error))

    async def settle(self) -> None:
        """Returns when what was to be written is."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

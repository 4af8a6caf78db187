"""Dials the bootstrap peers that an assignment names while the agent runs; the core dials the first ones."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from chorus.config import Assignment
from chorus.hub import HubError
from chorus.process import Process

# Waits between attempts at an address, as the core's: doubled each time, with jitter.
AGAIN_FIRST_S: Final = 1.0
AGAIN_MAX_S: Final = 60.0
DIAL_TIMEOUT_S: Final = 15.0


class Bootstrap:
    """Dials each new address until it was reached once; then the core knows the peer."""

    def __init__(self, process: Process, known: tuple[str, ...]) -> None:
        self._process = process
        self._known = set(known)
        self._dialling: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follows the assignment until cancelled."""
        try:
            # It may have changed while the core started.
            self._take(self._process.assignments.current)
            async for assignment in self._process.assignments.changes():
                self._take(assignment)
        finally:
            for task in self._dialling.values():
                task.cancel()

    def _take(self, assignment: Assignment) -> None:
        wanted = set(assignment.bootstrap_peers)
        for gone in self._dialling.keys() - wanted:
            self._dialling.pop(gone).cancel()
        for address in wanted - self._known - self._dialling.keys():
            self._dialling[address] = asyncio.create_task(self._dial(address))

    async def _dial(self, address: str) -> None:
        wait = AGAIN_FIRST_S
        while True:
            try:
                await self._process.hub.dial(address, timeout=DIAL_TIMEOUT_S)
            except HubError as error:
                self._process.log.info("a bootstrap peer is not reached", address=address, error=str(error))
            else:
                self._process.log.info("a new bootstrap peer is reached", address=address)
                self._known.add(address)
                self._dialling.pop(address, None)
                return
            await asyncio.sleep(wait * (0.75 + random.random() / 2))
            wait = min(wait * 2, AGAIN_MAX_S)

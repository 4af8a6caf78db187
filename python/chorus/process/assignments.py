"""The agent's assignment as one of its processes knows it: taken at use, or followed by who must act on a
change. The parent of the agent has the last word; its changes come over the hub.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from chorus.config import Assignment
from chorus.config.values import from_json
from chorus.hub import Hub, HubError

# Where the parent tells of a change, and the service that it offers.
TOPIC: Final = "local/assignment"
SERVICE: Final = "agent"
# News may be lost with a connection; after this the parent is asked.
LOOK_AGAIN_S: Final = 15.0
ANSWER_S: Final = 5.0
# Assignments that counted before the present one, for `recent`.
BEFORE_MAX: Final = 16


class Assignments:
    """The present assignment, and those that come after it."""

    def __init__(self, current: Assignment, clock: Callable[[], float] = time.monotonic) -> None:
        self._current, self._clock = current, clock
        # Each with the time at which the next one took its place.
        self._before: deque[tuple[Assignment, float]] = deque(maxlen=BEFORE_MAX)
        # How many changes the parent had made; -1 before it was heard.
        self._number = -1
        self._changed = asyncio.Event()

    @property
    def current(self) -> Assignment:
        """The assignment that counts now."""
        return self._current

    def recent(self, within_s: float) -> list[Assignment]:
        """The present assignment, and those that counted within the last so many seconds."""
        since = self._clock() - within_s
        return [self._current, *(before for before, until in self._before if until > since)]

    async def changes(self) -> AsyncIterator[Assignment]:
        """Each assignment after the present one; of changes in quick succession the last alone."""
        seen = self._current
        while True:
            while self._current == seen:
                await self._changed.wait()
            seen = self._current
            yield seen

    def take(self, current: Assignment) -> None:
        """Another assignment counts from now on."""
        self._before.append((self._current, self._clock()))
        self._current = current
        # Whoever waits now is woken; who waits later waits for the next one.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self, hub: Hub) -> None:
        """Takes each change of the parent's, until cancelled."""
        async with hub.subscribe(TOPIC) as messages:
            while True:
                try:
                    reply = await hub.call_service(SERVICE, "assignment", timeout=ANSWER_S)
                    self._hear(reply.head)
                except HubError:
                    pass  # it has not begun to answer, or ends; what is known counts meanwhile
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        self._hear((await messages.get()).data)
                except TimeoutError:
                    continue

    def _hear(self, said: Any) -> None:
        if not isinstance(said, Mapping) or type(said.get("number")) is not int:
            return
        if said["number"] <= self._number:
            return
        try:
            heard = from_json(Assignment, said.get("assignment"))
        except ValueError:
            return  # no word of this version's parent
        self._number = said["number"]
        if heard != self._current:
            self.take(heard)

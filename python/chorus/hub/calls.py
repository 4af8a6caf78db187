"""A connection's calls that wait for their answer, and the one timer that ends them at their deadlines."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chorus.hub.errors import HubClosed, HubTimeout
from chorus.hub.types import Reply

# The timer goes off at most this often: calls whose deadlines are near each other are ended together.
TIMER_GRAIN_S = 0.005

OnOk = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Waiting:
    """One call. `on_ok` is told the head of an OK before the caller has it."""

    future: asyncio.Future[Reply]
    method: str
    timeout: float
    deadline: float
    on_ok: OnOk | None


class Calls:
    """Calls by their number. `on_late` is told the number of a call that was given up at its deadline."""

    def __init__(self, on_late: Callable[[int], None]) -> None:
        self._on_late = on_late
        self._waiting: dict[int, Waiting] = {}
        # One for all: a timer costs as much as the rest of a call. Calls that are answered leave it as it is.
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def add(self, ident: int, method: str, timeout: float, on_ok: OnOk | None) -> asyncio.Future[Reply]:
        """What a new call's answer sets, or its end; that comes within `timeout` seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        deadline = loop.time() + timeout
        self._waiting[ident] = Waiting(future, method, timeout, deadline, on_ok)
        if deadline < self._due:
            self._set_timer(deadline)
        return future

    def take(self, ident: int) -> Waiting | None:
        """Takes a call out; None when it has been answered or given up."""
        return self._waiting.pop(ident, None)

    def lose(self) -> None:
        """The connection is gone, and with it all its calls."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            if not one.future.done():
                one.future.set_exception(HubClosed("the connection to the hub was lost; outcome unknown"))
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = asyncio.get_running_loop().call_at(when, self._end_late), when

    def _end_late(self) -> None:
        self._timer, self._due = None, math.inf
        now = asyncio.get_running_loop().time()
        for ident in [ident for ident, one in self._waiting.items() if one.deadline <= now]:
            one = self._waiting.pop(ident)
            if not one.future.done():
                one.future.set_exception(HubTimeout(f"{one.method} had no answer within {one.timeout:g} s"))
                self._on_late(ident)
        if self._waiting:
            self._set_timer(max(now + TIMER_GRAIN_S, min(one.deadline for one in self._waiting.values())))

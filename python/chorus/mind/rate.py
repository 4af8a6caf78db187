"""A provider's limit of calls a minute for the whole mesh, and this agent's share of it. Pure: time is an
argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

RESETDATA_CALLS_PER_MINUTE: Final = 40
PERIOD_S: Final = 60.0


class Share:
    """Calls in a window of time that moves: never more in any minute than the share, bursts included.

    `calls` are the moments of earlier ones, the oldest first.
    """

    def __init__(self, calls_per_minute: int, calls: Iterable[float] = ()) -> None:
        self._whole = calls_per_minute
        self._calls = deque(calls, maxlen=calls_per_minute)

    def wait_s(self, now: float, agents: int) -> float:
        """How long until a call may be made; 0: now, and `take` is to follow. `agents`: how many share the
        limit, this one included.
        """
        calls, period_s = self._part(agents)
        while self._calls and self._calls[0] <= now - period_s:
            self._calls.popleft()
        if len(self._calls) < calls:
            return 0.0
        return self._calls[len(self._calls) - calls] + period_s - now

    def take(self, now: float) -> None:
        """A call is made."""
        self._calls.append(now)

    @property
    def calls(self) -> Sequence[float]:
        """The moments of the last calls, the oldest first."""
        return tuple(self._calls)

    def _part(self, agents: int) -> tuple[int, float]:
        """So many calls in so many seconds. With more agents than calls, each waits longer than a minute."""
        agents = max(1, agents)
        calls = self._whole // agents
        if calls:
            return calls, PERIOD_S
        return 1, PERIOD_S * agents / self._whole

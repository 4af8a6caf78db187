"""The leases of running attempts, kept by the leader: who was heard when, and whose lease is over. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

# An executor out of touch for one lease stops its sandbox; the leader waits a tenth longer before it offers
# the task again, so that a slow clock or message never gives one attempt's work to two.
GRACE = 1.1

Attempt = tuple[str, int]


class Leases:
    """The last renewal of each open attempt.

    Times are seconds of a clock that counts a machine's sleep too.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        # Oldest renewal first: what is due is found without looking at the rest.
        self._renewed: OrderedDict[Attempt, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._renewed)

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._renewed

    def reset(self, attempts: Iterable[Attempt], now: float) -> None:
        """A new leader gives every open attempt a fresh lease."""
        self._renewed = OrderedDict((attempt, now) for attempt in attempts)

    def renew(self, attempt: Attempt, now: float) -> None:
        """The attempt's executor was heard; a later renewal is never undone by an earlier one."""
        if self._renewed.get(attempt, now) <= now:
            self._renewed[attempt] = now
            self._renewed.move_to_end(attempt)

    def end(self, attempt: Attempt) -> None:
        """The attempt is over."""
        self._renewed.pop(attempt, None)

    def due(self, now: float) -> list[Attempt]:
        """The attempts to be offered again."""
        over = []
        for attempt, renewed in self._renewed.items():
            if now < renewed + GRACE * self.lease_s:
                break
            over.append(attempt)
        return over

    def next_due(self) -> float | None:
        """When the next one will be due, if none is renewed."""
        for renewed in self._renewed.values():
            return renewed + GRACE * self.lease_s
        return None

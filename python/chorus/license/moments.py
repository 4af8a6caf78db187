"""A clock for licences that setting the machine's clock, back or forward, does not move. Pure: readings are
arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Moments:
    """Counts by a monotonic clock from a time that was `ticks` of it ago. All are seconds."""

    since: float
    ticks: float

    @classmethod
    def begun(cls, newest: float, wall: float, ticks: float) -> Self:
        """At a start: the machine's clock tells what has gone by, but no less than the newest time ever seen,
        which is kept on disk.
        """
        return cls(max(newest, wall), ticks)

    def now(self, ticks: float) -> float:
        """The present."""
        return self.since + max(0.0, ticks - self.ticks)

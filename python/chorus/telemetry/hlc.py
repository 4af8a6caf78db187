"""The hybrid logical clock of beats and claims (Kulkarni 2014), in the short form of BACKBEAT's frames.

Seconds, counter and node have 16 bits each. Pure; the wall clock is an argument, in whole seconds since 1970.
"""

from __future__ import annotations

import hashlib
from typing import Final

_BITS: Final = 1 << 16
# A frame whose clock is further ahead does not move ours.
AHEAD_MAX_S: Final = 60


class Clock:
    """One agent's clock."""

    def __init__(self, peer_id: str) -> None:
        self._node = hashlib.sha256(peer_id.encode()).hexdigest()[:4]
        self._seconds, self._count = 0, 0

    def tick(self, wall_s: int) -> str:
        """The next reading; each is later than the one before."""
        if wall_s > self._seconds:
            self._seconds, self._count = wall_s, 0
        else:
            self._count += 1
            if self._count == _BITS:
                self._seconds, self._count = self._seconds + 1, 0
        return f"{self._seconds % _BITS:04x}:{self._count:04x}:{self._node}"

    def hear(self, hlc: str, wall_s: int) -> None:
        """Moves past a reading of somebody else's, unless it is too far ahead to be true."""
        short, count, _ = (int(part, 16) for part in hlc.split(":"))
        # Of the seconds only the low bits travel: the nearest moment that has them.
        half = _BITS // 2
        seconds = wall_s + (short - wall_s + half) % _BITS - half
        if seconds - wall_s <= AHEAD_MAX_S:
            self._seconds, self._count = max((self._seconds, self._count), (seconds, count))

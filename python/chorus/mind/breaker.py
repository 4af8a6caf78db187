"""Leaves a provider alone that has failed again and again, for a while that grows.

Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

FAILURES_MAX: Final = 5
OPEN_FIRST_S: Final = 10.0
OPEN_MAX_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one provider's failures. Times are seconds of one monotonic clock."""

    failures: int = 0
    open_until: float = 0.0
    open_s: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long it is still to be left alone; 0: it may be asked."""
        return max(0.0, self.open_until - now)

    def succeeded(self) -> Breaker:
        """After an answer."""
        return Breaker()

    def failed(self, now: float, retry_after_s: float | None = None) -> Breaker:
        """After a failure. A server that says how long to wait is left alone for as long at least, but not
        longer than any other.
        """
        failures = self.failures + 1
        asked_s = min(retry_after_s or 0.0, OPEN_MAX_S)
        if failures < FAILURES_MAX:
            return replace(self, failures=failures, open_until=max(self.open_until, now + asked_s))
        # After a while one call finds out; if it fails, the next while is longer.
        open_s = min(max(OPEN_FIRST_S, self.open_s * 2), OPEN_MAX_S)
        return Breaker(failures, now + max(open_s, asked_s), open_s)

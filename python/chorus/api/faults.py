"""Tells of errors that nobody foresaw, at a bounded rate: whoever can cause one can cause many."""

from __future__ import annotations

import logging
import time
from typing import Final

from chorus.hub import HubError

# One in this time is told, the others are counted.
FAULT_PERIOD_S: Final = 10.0

log = logging.getLogger(__name__)


class Faults:
    """The unexpected errors of one place."""

    def __init__(self) -> None:
        self._next = 0.0
        self._left_out = 0

    def tell(self, error: Exception, what: str) -> None:
        """Writes what ended by the error, or only counts it for the next line."""
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} errors before it were left out)" if self._left_out else ""
        self._next, self._left_out = now + FAULT_PERIOD_S, 0
        if isinstance(error, HubError):
            # Another process or agent went away: no fault of this program.
            log.warning("%s broke off: %s%s", what, error.message, more)
        else:
            log.error("%s ended by an error%s", what, more, exc_info=error)

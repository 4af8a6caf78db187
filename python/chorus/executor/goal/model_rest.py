"""Leaves the models of this agent alone for a while after a goal came back because none answered it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 10.0
MAX_S: Final = 300.0


class ModelRest:
    """Such a goal counts as no attempt: without a pause it would be awarded and come back again and again,
    with entries in the mesh's log each time, while its server is there and does not answer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest_s = 0.0
        self._until = 0.0
        self._why = ""

    def away(self, why: str) -> None:
        """A goal came back; each pause is twice as long as the one before."""
        now = self._clock()
        if now < self._until:
            return  # another goal that came back for the same
        self._rest_s = min(max(FIRST_S, 2 * self._rest_s), MAX_S)
        self._until, self._why = now + self._rest_s, why

    def there(self) -> None:
        """A model answered a goal."""
        self._rest_s = self._until = 0.0

    @property
    def reason(self) -> str:
        """Why no goal is taken now; empty when goals are. The same text as long as a pause lasts."""
        if self._clock() >= self._until:
            return ""
        return f"no goal is taken for a while, as the last one got no answer: {self._why}"

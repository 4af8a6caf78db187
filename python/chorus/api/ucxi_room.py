"""The memory that content on its way may take, shared by all requests of UCXI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from chorus.api.ucxi_answers import Code, Refusal
from chorus.decisions.content import VALUE_MAX_BYTES

# Beyond it requests are asked to come back.
MEMORY_MAX_BYTES: Final = 256 * 1024 * 1024
# What one request holds beside its content: the value to be sealed, or the JSON of the answer.
COPIES: Final = 3
RETRY_AFTER_S: Final = 1


class Room:
    """Counts bytes of content; nothing waits here."""

    def __init__(self, size: int = MEMORY_MAX_BYTES) -> None:
        self._free = size

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Holds room for content of the size that was announced; refuses when there is none."""
        wanted = min(size, VALUE_MAX_BYTES) * COPIES
        if wanted > self._free:
            raise Refusal(
                Code.TOO_MANY_REQUESTS,
                "this agent handles as much content as it has memory for; come back in a moment",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._free -= wanted
        try:
            yield
        finally:
            self._free += wanted

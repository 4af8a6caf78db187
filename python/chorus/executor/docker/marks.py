"""Finds the session's marks in its output streams, and leaves every other byte as it is. No I/O.

Who wrote a mark is not known here: the session accepts those whose token it has given out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# A mark is short; a start without an end within this is output that happens to look like one.
MARK_BYTES_MAX = 4096
# What a counter of the kernel, or its clock in nanoseconds, can be; JSON keeps it exact.
COUNTER_MAX = 2**53
EXIT_CODE_MAX = 255


class MarkError(ValueError):
    """A mark of the session does not say what it must."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark: its words, and the bytes that it was."""

    words: tuple[str, ...]
    raw: bytes


def counter(word: str, largest: int = COUNTER_MAX) -> int:
    """A number from 0 to `largest` in decimal digits; raises MarkError."""
    if not (word.isascii() and word.isdigit() and len(word) <= len(str(largest))) or int(word) > largest:
        raise MarkError(f"{word[:40]!r} is no number from 0 to {largest}")
    return int(word)


def counters(words: tuple[str, ...], count: int) -> tuple[int, ...]:
    """So many numbers and nothing else; raises MarkError."""
    if len(words) != count:
        raise MarkError(f"{len(words)} numbers where {count} belong")
    return tuple(counter(word) for word in words)


class MarkFinder:
    """Splits one stream into output and marks. Only bytes that may begin a mark are held back."""

    def __init__(self, nonce: str) -> None:
        self._start = b"\0" + nonce.encode("ascii") + b" "
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes | Mark]:
        """Yields what is known after these bytes, in order."""
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while True:
            start = data.find(self._start, position)
            if start < 0:
                break
            end = data.find(b"\n", start + len(self._start), start + MARK_BYTES_MAX)
            if end < 0:
                if len(data) - start >= MARK_BYTES_MAX:
                    yield data[position : start + 1]
                    position = start + 1
                    continue
                if start > position:
                    yield data[position:start]
                self._held = data[start:]
                return
            if start > position:
                yield data[position:start]
            words = data[start + len(self._start) : end].decode("ascii", "replace").split()
            yield Mark(tuple(words), data[start : end + 1])
            position = end + 1
        keep = self._partial_start(data, position)
        if keep > position:
            yield data[position:keep] if position or keep < len(data) else data
        self._held = data[keep:]

    def finish(self) -> bytes:
        """What was held back when the stream ended."""
        held, self._held = self._held, b""
        return held

    def _partial_start(self, data: bytes, position: int) -> int:
        """Where a start that the data cuts off would begin; the end of the data when there is none."""
        nul = data.rfind(b"\0", max(position, len(data) - len(self._start) + 1))
        while nul >= 0:
            if self._start.startswith(data[nul:]):
                return nul
            nul = data.rfind(b"\0", max(position, len(data) - len(self._start) + 1), nul)
        return len(data)

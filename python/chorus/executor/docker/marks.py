"""Finds the session's marks in its output streams, and leaves every other byte as it is. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# A mark is short; a start without an end within this is output that happens to look like one.
MARK_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """The words of a mark."""

    words: tuple[str, ...]


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
            yield Mark(tuple(data[start + len(self._start) : end].decode("ascii", "replace").split()))
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

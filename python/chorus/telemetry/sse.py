"""The data of server-sent events out of bytes as they come, in bounded memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chorus.telemetry.frames import FRAME_MAX_BYTES

_PREFIX: Final = b"data"


class Events:
    """Reads a stream of events. What is longer than a frame may be is left out and counted."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        # Whether the rest of this line, or of this event, is passed over.
        self._long_line = self._long_event = False
        self._after_return = False
        self.too_large = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that ends in this piece."""
        # A carriage return ends a line, with or without a line feed, which the next piece may begin with.
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_return = False
        if not piece:
            return
        self._after_return = piece.endswith(b"\r")
        *ended, rest = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for end in ended:
            self._add(end)
            line, self._line = bytes(self._line), bytearray()
            long, self._long_line = self._long_line, False
            if long:
                self._long_event = True
            elif line:
                self._take(line)
            else:
                yield from self._end()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        if self._long_line or len(self._line) + len(part) > FRAME_MAX_BYTES + len(b"data: "):
            self._long_line = True
            self._line.clear()
        else:
            self._line += part

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name.removeprefix(b"\xef\xbb\xbf") != _PREFIX:
            return
        value = value.removeprefix(b" ")
        self._size += len(value) + 1
        if self._long_event or self._size > FRAME_MAX_BYTES + 1:
            self._long_event = True
            self._data.clear()
        else:
            self._data.append(value)

    def _end(self) -> Iterator[bytes]:
        data, self._data, self._size = self._data, [], 0
        long, self._long_event = self._long_event, False
        if long:
            self.too_large += 1
        elif data:
            yield b"\n".join(data)

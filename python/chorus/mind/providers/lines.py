"""Cuts a stream of bytes into lines, none of them longer than a bound. Pure."""

from __future__ import annotations

from typing import Final

from chorus.mind.providers.failures import Garbled

# Room for the largest arguments of a call, each byte escaped.
LINE_MAX_BYTES: Final = 2 * 1024 * 1024


class Lines:
    """Takes bytes as they come and gives lines, without their ends."""

    def __init__(self, most: int = LINE_MAX_BYTES) -> None:
        self._most = most
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now. Raises Garbled for one that is too long."""
        # Searching only what is new keeps a long line linear.
        if b"\n" not in data:
            self._rest += data
            self._check(len(self._rest))
            return []
        *whole, rest = data.split(b"\n")
        whole[0] = bytes(self._rest) + whole[0]
        for line in (*whole, rest):
            self._check(len(line))
        self._rest = bytearray(rest)
        return [line.removesuffix(b"\r") for line in whole]

    def end(self) -> list[bytes]:
        """What was left when the stream ended: a last line without an end."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [rest] if rest.strip() else []

    def _check(self, size: int) -> None:
        if size > self._most:
            raise Garbled(f"a line of its stream is longer than {self._most} bytes")

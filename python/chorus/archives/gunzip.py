"""Reads plain or gzip-compressed bytes as a stream, no more of them at once than are asked for."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Protocol

from chorus.archives.errors import ArchiveRefused

_CHUNK_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"
# zlib's way to say: with the header and the checksum of gzip.
_GZIP = 16 + zlib.MAX_WBITS


class Stream(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end. Raises ArchiveRefused, OSError."""


def open_stream(file: BinaryIO) -> Stream:
    """The bytes of a file, decompressed when they are gzip's."""
    head = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return _Gunzip(file) if head == GZIP_MAGIC else file


class _Gunzip:
    """gzip, of one member or several; at the end of each its checksum and its length are compared."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(_GZIP)
        self._waiting = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ended:
            if self._inflate.eof:
                self._next_member()
                continue
            packed = self._waiting or self._file.read(_CHUNK_BYTES)
            if not packed:
                raise ArchiveRefused("the gzip stream ends too early")
            try:
                data = self._inflate.decompress(packed, size)
            except zlib.error as error:
                raise ArchiveRefused(f"the gzip stream is damaged: {error}") from None
            self._waiting = self._inflate.unconsumed_tail
            if data:
                return data
        return b""

    def _next_member(self) -> None:
        rest = self._inflate.unused_data
        if len(rest) < len(GZIP_MAGIC):
            rest += self._file.read(_CHUNK_BYTES)
        self._ended = not rest.startswith(GZIP_MAGIC)
        if self._ended:
            self._only_zeros(rest)
        self._inflate, self._waiting = zlib.decompressobj(_GZIP), rest

    def _only_zeros(self, rest: bytes) -> None:
        """Zeros fill what was written in blocks; anything else may be a member whose beginning is damaged."""
        while rest:
            if any(rest):
                raise ArchiveRefused("something that is not gzip follows the gzip stream")
            rest = self._file.read(_CHUNK_BYTES)

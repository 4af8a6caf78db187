"""Byte streams over the hub: flow-controlled both ways, ended in each direction or reset as a whole."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from chorus.hub import frames
from chorus.hub.errors import HubClosed, HubError, error_from

# What either side may send before the other says that it has read (docs/ipc.md).
WINDOW_BYTES = 1024 * 1024
# Read bytes are given back as window in portions of this size, not read by read.
WINDOW_RETURN_BYTES = WINDOW_BYTES // 4
# One DATA frame carries at most this much, so that other traffic finds gaps.
CHUNK_BYTES = 256 * 1024


class StreamLink(Protocol):
    """What carries a stream's frames: a connection to the hub, or the fake one."""

    def send(self, op: int, ident: int, head: Mapping[str, Any] | None = None, payload: bytes = b"") -> None:
        """Queues a frame."""

    async def drained(self) -> None:
        """Returns when there is room to write."""


class ByteStream:
    """One byte stream to a service of a sibling or a peer. Iterating it yields chunks until the clean end."""

    def __init__(self, ident: int, link: StreamLink, on_gone: Callable[[int], None]) -> None:
        self.ident = ident
        self._link = link
        self._on_gone = on_gone
        self._chunks: deque[bytes] = deque()
        self._unreturned = 0
        self._window = WINDOW_BYTES
        self._ended = False
        self._peer_ended = False
        self._error: HubError | None = None
        self._gone = False
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    async def read(self, n: int = -1) -> bytes:
        """The next chunk, of at most `n` bytes when `n` is positive; b"" at the clean end."""
        while not self._chunks:
            # What ended cleanly stays whole, however the other direction ends afterwards.
            if self._peer_ended:
                return b""
            if self._error is not None:
                raise self._error
            self._readable = asyncio.get_running_loop().create_future()
            await self._readable
        chunk = self._chunks.popleft()
        if 0 < n < len(chunk):
            self._chunks.appendleft(chunk[n:])
            chunk = chunk[:n]
        self._unreturned += len(chunk)
        if self._unreturned >= WINDOW_RETURN_BYTES and not self._peer_ended and not self._gone:
            self._link.send(frames.WINDOW, self.ident, {"n": self._unreturned})
            self._unreturned = 0
        return chunk

    async def read_all(self, limit: int) -> bytes:
        """Everything up to the clean end; more than `limit` bytes reset the stream and raise."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit:
                error = error_from("too_large", f"the stream carries more than {limit} bytes")
                await self.close(error)
                raise error
            parts.append(chunk)
        return b"".join(parts)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes, waiting for the reader's window."""
        view = memoryview(data)
        while len(view):
            await self._link.drained()
            while self._window <= 0 and self._error is None and not self._ended and not self._gone:
                self._writable = asyncio.get_running_loop().create_future()
                await self._writable
            self._check_writable()
            take = min(len(view), CHUNK_BYTES, self._window)
            self._window -= take
            self._link.send(frames.DATA, self.ident, None, bytes(view[:take]))
            view = view[take:]

    async def end(self) -> None:
        """Ends our direction cleanly; reading goes on."""
        if self._error is not None:
            raise self._error
        if self._ended or self._gone:
            return
        self._ended = True
        self._link.send(frames.END, self.ident)
        self._settle()

    async def close(self, error: HubError | None = None) -> None:
        """Gives the stream up: a reset with `error` (or `closed`) unless both directions have ended."""
        if self._gone:
            return
        if not (self._ended and self._peer_ended):
            reason = error or HubClosed("the other side closed the stream")
            self._link.send(frames.END, self.ident, {"code": reason.code, "message": reason.message})
            self._error = error or HubClosed("the stream is closed")
        self._gone = True
        self._wake()
        self._on_gone(self.ident)

    def on_frame(self, op: int, head: bytes, payload: bytes) -> None:
        """Takes a DATA, WINDOW or END frame off the wire."""
        if self._gone:
            return
        if op == frames.DATA:
            if payload:
                self._chunks.append(payload)
        elif op == frames.WINDOW:
            self._window += int(orjson.loads(head)["n"])
        else:
            said: dict[str, Any] = orjson.loads(head) if head else {}
            if "code" in said:
                self.on_lost(error_from(str(said["code"]), str(said.get("message", ""))))
                return
            self._peer_ended = True
            self._settle()
        self._wake()

    def on_lost(self, error: HubError) -> None:
        """The stream was reset by the other side, or the connection is gone."""
        if self._gone:
            return
        self._error = error
        self._gone = True
        self._wake()
        self._on_gone(self.ident)

    def _check_writable(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended or self._gone:
            raise HubClosed("our direction of the stream has ended")

    def _settle(self) -> None:
        if self._ended and self._peer_ended and not self._gone:
            self._gone = True
            self._on_gone(self.ident)

    def _wake(self) -> None:
        for waiter in (self._readable, self._writable):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

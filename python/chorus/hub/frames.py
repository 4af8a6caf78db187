"""The frames of the hub's wire (docs/ipc.md): the one place in Python that packs, bounds and unpacks them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson

CALL, OK, ERR, EVENT, CREDIT, CANCEL, DATA, WINDOW, END = range(1, 10)

# Bytes after the length field. 16 MiB of payload (the largest DHT value) and room for its head.
FRAME_MAX_BYTES = 17 * 1024 * 1024
# A payload from this size on is written by itself instead of being copied behind its header.
SEPARATE_WRITE_BYTES = 64 * 1024
# What the loop may hold of ours before writers wait.
WRITE_HIGH_WATER_BYTES = 1024 * 1024

_PREFIX = struct.Struct(">IBII")
_FIXED_BYTES = 9  # op, id and hlen, which the length counts

FrameHandler = Callable[[int, int, bytes, bytes], None]


class FrameError(Exception):
    """Bytes that are no frame; the connection they came on cannot be used any more."""


def encode_prefix(op: int, ident: int, head: Mapping[str, Any] | None, payload_bytes: int) -> bytes:
    """Everything of a frame but its payload."""
    packed = orjson.dumps(head) if head else b""
    size = _FIXED_BYTES + len(packed) + payload_bytes
    if size > FRAME_MAX_BYTES:
        raise FrameError(f"a frame of {size} bytes is above the hub's ceiling of {FRAME_MAX_BYTES}")
    return _PREFIX.pack(size, op, ident, len(packed)) + packed


def encode(op: int, ident: int, head: Mapping[str, Any] | None = None, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return encode_prefix(op, ident, head, len(payload)) + payload


class FrameProtocol(asyncio.Protocol):
    """Cuts the byte stream into frames for `on_frame` and says when the connection is lost."""

    def __init__(self, on_frame: FrameHandler, on_lost: Callable[[Exception | None], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # Not isinstance: uvloop's transports are Transports in all but name.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self.resume_writing()
        self._on_lost(exc)

    def pause_writing(self) -> None:
        """Called by the loop when the hub reads slower than we write."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Called by the loop when there is room again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    @property
    def paused(self) -> bool:
        """Whether writers should wait with `drained`."""
        return self._writable is not None

    async def drained(self) -> None:
        """Returns when there is room to write, or the connection is gone."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    @property
    def alive(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, op: int, ident: int, head: Mapping[str, Any] | None = None, payload: bytes = b"") -> None:
        """Queues a frame; lost silently when the connection is gone (`on_lost` tells)."""
        prefix = encode_prefix(op, ident, head, len(payload))
        transport = self._transport
        if transport is None:
            return
        if len(payload) >= SEPARATE_WRITE_BYTES:
            transport.write(prefix)
            transport.write(payload)
        else:
            transport.write(prefix + payload)

    def close(self) -> None:
        """Ends the connection after what is queued was written."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by the loop with whatever came."""
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        position, end = 0, len(data)
        need = _PREFIX.size
        while end - position >= _PREFIX.size:
            size, op, ident, head_bytes = _PREFIX.unpack_from(data, position)
            if size > FRAME_MAX_BYTES or size < _FIXED_BYTES + head_bytes:
                self._abort(FrameError(f"the hub sent a frame of {size} bytes with a head of {head_bytes}"))
                return
            need = size + 4
            if end - position < need:
                break
            head_at = position + _PREFIX.size
            payload_at = head_at + head_bytes
            position += need
            need = _PREFIX.size
            self._on_frame(op, ident, data[head_at:payload_at], data[payload_at:position])
        if position < end:
            self._chunks.append(data[position:])
            self._have = end - position
            self._need = need

    def _abort(self, error: FrameError) -> None:
        self._on_lost(error)
        if self._transport is not None:
            self._transport.abort()

"""The two-way byte channel to a Docker Exec session: one thread that reads, demultiplexes and writes.

Works on plain and TLS sockets alike. What comes in is handed over on the thread itself, so a slow receiver
slows the
sandbox and nothing piles up in memory.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

_READ_BYTES = 256 * 1024
_FRAME_HEAD = struct.Struct(">BxxxL")
# More than this waiting to be written means that the daemon takes nothing any more.
_WRITE_BACKLOG_BYTES = 8 * 1024 * 1024
# How a channel ends that the other side has closed.
ENDED = "the session ended"

Receive = Callable[[int, bytes], None]
Closed = Callable[[str], None]


class ChannelClosed(Exception):
    """Nothing can be written any more."""


class Channel:
    """Owns the socket of a started exec. `receive(stream, data)` and `closed(why)` run on its thread."""

    def __init__(self, sock: socket.socket, receive: Receive, closed: Closed, *, keep: Any = None) -> None:
        self._sock = sock
        self._keep = keep  # docker-py closes the connection when its response object is collected
        self._receive = receive
        self._closed = closed
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._out: collections.deque[memoryview] = collections.deque()
        self._out_bytes = 0
        self._ending = False
        self._why = "closed"
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pending = bytearray()
        sock.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="sandbox-session", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Sends at once what the socket takes, the thread sends the rest. Never blocks."""
        with self._lock:
            if self._ending:
                raise ChannelClosed
            if self._out_bytes + len(data) > _WRITE_BACKLOG_BYTES:
                raise ChannelClosed
            view = memoryview(data)
            if not self._out:
                view = view[self._send(view) :]
            if view:
                self._out.append(view)
                self._out_bytes += len(view)
                os.eventfd_write(self._wake, 1)

    def write_wait(self, data: bytes, timeout_s: float) -> None:
        """Like `write`, but first waits until little is waiting. For threads that carry much."""
        with self._room:
            if not self._room.wait_for(lambda: self._ending or self._out_bytes < _READ_BYTES, timeout_s):
                raise ChannelClosed
        self.write(data)

    def close(self, why: str = "closed") -> None:
        """Ends the thread, which closes the socket and says why."""
        with self._lock:
            if not self._ending:
                self._ending, self._why = True, why
                os.eventfd_write(self._wake, 1)

    def join(self, timeout_s: float) -> None:
        """Waits for the thread."""
        self._thread.join(timeout_s)

    def _send(self, view: memoryview) -> int:
        try:
            return self._sock.send(view)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError:
            return 0  # the reading side finds out and says so

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        try:
            while True:
                with self._lock:
                    if self._ending:
                        return
                    while self._out:
                        sent = self._send(self._out[0])
                        self._out_bytes -= sent
                        if sent < len(self._out[0]):
                            self._out[0] = self._out[0][sent:]
                            break
                        self._out.popleft()
                    self._room.notify_all()
                    poller.register(self._sock, select.POLLIN | (select.POLLOUT if self._out else 0))
                buffered = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
                for descriptor, _ in poller.poll(0 if buffered else None):
                    if descriptor == self._wake:
                        os.eventfd_read(self._wake)
                data = self._read()
                if data is None:
                    continue
                if not data:
                    self._why = ENDED
                    return
                self._demultiplex(data)
        except Exception as error:  # whatever breaks here ends this one session, by name
            self._why = f"the session broke: {error}"
        finally:
            with self._lock:
                self._ending = True
                self._room.notify_all()
                with contextlib.suppress(OSError):
                    self._sock.close()
                os.close(self._wake)
            self._keep = None
            self._closed(self._why)

    def _read(self) -> bytes | None:
        with self._lock:  # a TLS object must not be read and written at once
            try:
                return self._sock.recv(_READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except OSError:  # reset, unreachable, or TLS cut off
                return b""

    def _demultiplex(self, data: bytes) -> None:
        """Docker's frames: stream, length, bytes. Neighbours of one stream are passed on in one piece."""
        pending = self._pending
        pending += data
        position = 0
        total = len(pending)
        pieces: list[bytes] = []
        current = 0
        while total - position >= _FRAME_HEAD.size:
            stream, length = _FRAME_HEAD.unpack_from(pending, position)
            end = position + _FRAME_HEAD.size + length
            if end > total:
                break
            if stream != current and pieces:
                self._receive(current, b"".join(pieces))
                pieces.clear()
            current = stream
            pieces.append(bytes(memoryview(pending)[position + _FRAME_HEAD.size : end]))
            position = end
        if pieces:
            self._receive(current, b"".join(pieces))
        del pending[:position]
        if len(pending) > 4 * _READ_BYTES and _FRAME_HEAD.unpack_from(pending)[1] > 64 * _READ_BYTES:
            raise ValueError("a frame larger than the daemon ever sends")

"""One connection of a client: uvicorn's, with bounds on what comes before a request and around its body.

A client that is silent, or sends its headers byte by byte, is cut off; among many that hold a connection
without a request under way the longest idle one makes room for the next that comes, unless it has only
just come itself. Whatever is not the body of a request (its target, headers, chunk sizes with their
extensions, trailers) is counted before it is kept. Bodies have limits of their own (guard).
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from chorus.api.problems import Problem
from chorus.process import metrics

# From a connection's beginning, or a request's first byte, to the end of its headers.
HEADERS_MAX_S: Final = 10.0
# From so many connections on, idle ones are closed when another comes; far below the limit on all of them.
CROWDED_CONNECTIONS: Final = 512
# In a burst of clients a request may wait this long to be read.
IDLE_MIN_S: Final = 1.0
# The request line and the headers of a request; after them, what is neither body nor CHUNK_FRAME_BYTES.
HEAD_MAX_BYTES: Final = 64 * 1024
HEADERS_MAX_COUNT: Final = 100
# The longest address and query that a route takes, every byte of them percent-encoded, fit in.
TARGET_MAX_BYTES: Final = 32 * 1024
# The unfinished heads of all connections of a port; browsers and programs send a few hundred bytes each.
ALL_HEADS_MAX_BYTES: Final = 8 * 1024 * 1024
# A chunk's size and line ends, which every chunked body needs.
CHUNK_FRAME_BYTES: Final = 16
# Bytes are parsed in pieces of this size, so that a limit is seen soon after it is passed.
PIECE_BYTES: Final = 16 * 1024
# Requests that a client sends ahead of their answers; hardly any does. The rest it has to send again.
PIPELINED_MAX_COUNT: Final = 16
# After a refusal: how long the rest is read and thrown away. Closing on unread bytes resets the connection,
# and the client may lose the answer.
LINGER_MAX_S: Final = 5.0

_ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


class Connection(HttpToolsProtocol):
    """Ends what does not come to a request, and refuses what is larger than a request's head may be."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        # Whether the rest of what the client sends is thrown away.
        self._over = False
        # Before the end of a request's headers, or after it.
        self._in_head = True
        # Bytes since the last end of a head or of a request that are not those of a body.
        self._framing = 0
        self._headers_seen = 0
        # What the parser came across in the piece at hand.
        self._passed_end = False
        self._not_framing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._expect_headers()
        if len(self.connections) > CROWDED_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; those before the end of its headers do not buy more time."""
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        while rest and not self._over:
            most = min(PIECE_BYTES, HEAD_MAX_BYTES - self._framing) if self._in_head else PIECE_BYTES
            self._parse(rest[:most])
            rest = rest[most:]
        if self._idle_since is not None and self._deadline is None and not self.transport.is_closing():
            self._expect_headers()

    # ---- what the parser finds ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._headers_seen = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        super().on_url(url)
        if len(self.url) > TARGET_MAX_BYTES:
            raise Problem(414, f"the target of the request is longer than {TARGET_MAX_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after a chunked body, which nothing here reads."""
        self._headers_seen += 1
        if self._headers_seen > HEADERS_MAX_COUNT:
            raise Problem(431, f"the request has more than {HEADERS_MAX_COUNT} headers; send fewer")
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request begins."""
        if len(self.pipeline) >= PIPELINED_MAX_COUNT:
            raise Problem(429, "too many requests were sent ahead of their answers")
        self.url = _path_of(self.url, self.headers)
        self._stop_waiting()
        self._idle_since = None
        self._in_head = False
        self._passed_end = True
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """The size of a chunk, with its extensions."""
        self._not_framing += CHUNK_FRAME_BYTES

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._not_framing += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_head = True
        self._passed_end = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer was sent; uvicorn waits for the next request until its keep-alive is over."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._idle_since = self.loop.time()
            # A client that only keeps its connection does not keep 64 KiB of headers as well.
            self.cycle.scope = {**self.cycle.scope, "headers": []}
            self.headers = []

    # ---- bounds ------------------------------------------------------------------------------------

    def _parse(self, piece: memoryview) -> None:
        self._passed_end = False
        self._not_framing = 0
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # We speak nothing but HTTP/1.1: the request is answered, and what follows it cannot be read.
            self._end_after_answer()
            return
        except httptools.HttpParserError as error:
            found = error.__context__
            self._refuse(found if isinstance(found, Problem) else _malformed(found or error))
            return
        self._framing = max(0, self._framing + len(piece) - self._not_framing)
        if self._passed_end:
            self._framing = 0
        elif self._framing >= HEAD_MAX_BYTES:
            what = "request line and headers" if self._in_head else "chunk extensions and trailers"
            self._refuse(Problem(431, f"the {what} of the request are longer than {HEAD_MAX_BYTES} bytes"))
        elif self._framing > PIECE_BYTES:
            self._bound_all_heads()

    def _bound_all_heads(self) -> None:
        """When all unfinished heads together are too large, the largest has to go."""
        unfinished = [one for one in self.connections if isinstance(one, Connection) and not one._over]
        if sum(one._framing for one in unfinished) > ALL_HEADS_MAX_BYTES:
            largest = max(unfinished, key=lambda one: one._framing)
            largest._abort()

    def _refuse(self, problem: Problem) -> None:
        """Answers with the problem; earlier requests of the client are answered first, and nothing else."""
        metrics.HTTP_REQUESTS.labels("other", str(problem.status)).inc()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                self._end_after_answer()
                return
            if cycle.response_started or self.pipeline:
                self._abort()
                return
            # The request at hand is not to be answered by the application as well.
            cycle.disconnected = True
            cycle.message_event.set()
        elif not self._in_head:
            # It has its answer already; a second one would be taken for that of the next request.
            self._abort()
            return
        self._let_go()
        self.transport.write(_answer(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER_MAX_S, self.transport.abort)

    def _end_after_answer(self) -> None:
        """Reads no further; the connection closes with the last answer that is due."""
        self._let_go()
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _abort(self) -> None:
        self._let_go()
        self.transport.abort()

    def _let_go(self) -> None:
        self._over = True
        self._framing = 0
        self._stop_waiting()

    # ---- time --------------------------------------------------------------------------------------

    def _expect_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_MAX_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _make_room(self) -> None:
        recent = self.loop.time() - IDLE_MIN_S
        idle = [
            (one._idle_since, one)
            for one in self.connections
            if isinstance(one, Connection) and one._idle_since is not None and one._idle_since < recent
        ]
        if idle:
            min(idle, key=lambda pair: pair[0])[1].transport.abort()


def _path_of(target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The target as a path with its query, from any form that a client may send; Problem for others."""
    if not target.isascii():
        raise Problem(400, "the target holds bytes that are not ASCII: percent-encode them as UTF-8")
    if absolute := _ABSOLUTE_FORM.fullmatch(target):
        authority, rest = absolute[1], absolute[2]
        if any(name == b"host" and value.lower() != authority.lower() for name, value in headers):
            raise Problem(400, "the target names one host and the header Host another")
        target = rest if rest.startswith(b"/") else b"/" + rest
    if not target.startswith(b"/"):
        raise Problem(400, "the target is not a path: it has to begin with /, as in GET /api/v1/status")
    return target


def _malformed(error: BaseException) -> Problem:
    return Problem(400, f"the request is not HTTP/1.1 as it should be: {error}")


def _answer(problem: Problem) -> bytes:
    response = problem.response("")
    lines = [STATUS_LINE[problem.status], b"connection: close\r\n"]
    lines += [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
    return b"".join([*lines, b"\r\n", bytes(response.body)])

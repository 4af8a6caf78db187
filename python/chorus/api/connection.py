"""One connection of a client: uvicorn's, which has no patience of its own for what comes before a request.

A client that is silent, or sends its headers byte by byte, is cut off; among many that hold a connection
without a request under way the longest idle one makes room for the next that comes, unless it has only
just come itself.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# From a connection's beginning, or a request's first byte, to the end of its headers.
HEADERS_MAX_S: Final = 10.0
# From so many connections on, idle ones are closed when another comes; far below the limit on all of them.
CROWDED_CONNECTIONS: Final = 512
# In a burst of clients a request may wait this long to be read.
IDLE_MIN_S: Final = 1.0


class Connection(HttpToolsProtocol):
    """Ends what does not come to a request. Bodies have limits of their own (guard)."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None

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
        super().data_received(data)
        if self._idle_since is not None and self._deadline is None and not self.transport.is_closing():
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """A request begins."""
        self._stop_waiting()
        self._idle_since = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """An answer was sent; uvicorn waits for the next request until its keep-alive is over."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._idle_since = self.loop.time()

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

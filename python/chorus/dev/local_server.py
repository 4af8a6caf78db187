"""What the servers for development share: HTTP on 127.0.0.1 while a block runs, each request in a thread of
its own.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

# How long a server may take to see that it is to stop.
_POLL_S: Final = 0.01


class LocalHttp(ThreadingHTTPServer):
    """Listens on 127.0.0.1, and knows the connections that clients keep. Raises OSError for a port that is
    taken.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int, handler: type[LocalHandler]) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away at any moment; what else goes wrong is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class LocalHandler(BaseHTTPRequestHandler):
    """One connection; it logs nothing."""

    server: LocalHttp

    def setup(self) -> None:
        """The connection begins."""
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        """The connection ends."""
        self.server.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class LocalServer:
    """Answers while the block runs; `stopping` is set when it is about to end."""

    def __init__(self, http: LocalHttp) -> None:
        self.stopping = threading.Event()
        self._local = http
        self._thread = threading.Thread(target=http.serve_forever, args=(_POLL_S,), daemon=True)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return self._local.url

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Ends it, and the connections that clients keep: a server that is gone answers on none."""
        self.stopping.set()
        self._local.shutdown()
        self._local.server_close()
        cut(self._local.connections)

    def wait(self) -> None:
        """Returns when the server has stopped."""
        self._thread.join()


def cut(connections: set[socket.socket]) -> None:
    """Ends connections under whoever uses them."""
    for connection in tuple(connections):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

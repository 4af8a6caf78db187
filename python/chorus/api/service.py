"""The api process: two HTTP servers in one loop, over one hub connection and one reader of the table."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.types import ASGIApp

from chorus.api.app import api_app, guarded, guarded_probes
from chorus.api.connection import Connection
from chorus.api.context import Changes, Context
from chorus.api.health import health_app
from chorus.api.observer import Observer
from chorus.api.ucxi_text import Texts
from chorus.blobs import BlobStore
from chorus.hub import guard
from chorus.process import Process
from chorus.table.reader import TableReader
from chorus.telemetry.operations import NOTE

if TYPE_CHECKING:
    from chorus.telemetry.client import Backbeat

# After this, connections that are still open are cut.
GRACEFUL_STOP_S: Final = 5
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 512
MAX_CONNECTIONS: Final = 1024
# A killed predecessor's sockets may take a moment to go.
BIND_FOR_S: Final = 10.0
BIND_AGAIN_S: Final = 0.1
TICK_S: Final = 1.0


class Server(uvicorn.Server):
    """uvicorn without hands on our signals: the process body says when to stop.

    It wakes up once a second, for the date it answers with, not ten times to look whether to stop.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Takes no more requests; `serve` returns once those under way are answered or out of time."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Ticks until it is stopped."""
        # uvicorn counts tenths of a second and does what is due at each tenth of them.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the process."""
        yield


async def main(process: Process) -> None:
    """The body of the process."""
    settings = process.settings
    changes = Changes()
    table = TableReader(settings.paths.table_db)
    context = Context(
        settings,
        process.assignments,
        process.hub,
        table,
        BlobStore(settings.paths.blobs, settings.blobs_bytes),
        changes,
        texts=Texts(settings.paths.curator_db),
        stopping=process.stopping,
    )
    backbeat = _backbeat(process)
    observer = Observer(context, backbeat.health if backbeat is not None else None)
    await process.offer({} if backbeat is None else {NOTE: backbeat.note})
    api_socket = await bind(settings.api_host, settings.api_port)
    health_socket = await bind(settings.api_host, settings.health_port)
    api = _server(guarded(api_app(context), context))
    probes = _server(guarded_probes(health_app(observer)))
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(guard.lasting(lambda: changes.follow(process.hub), "event")),
            group.create_task(observer.run()),
        ]
        if backbeat is not None:
            background.append(group.create_task(guard.lasting(backbeat.run, "answer")))
        serving = [
            group.create_task(api.serve(sockets=[api_socket])),
            group.create_task(probes.serve(sockets=[health_socket])),
        ]
        process.log.info("serving", api=settings.api_port, health=settings.health_port)
        await process.stopping.wait()
        # Streams end by themselves when `stopping` is set; the rest has GRACEFUL_STOP_S.
        api.stop()
        await serving[0]
        probes.stop()
        await serving[1]
        for task in background:
            task.cancel()
    table.close()


def _backbeat(process: Process) -> Backbeat | None:
    """The client of BACKBEAT, which is loaded only where it is on. Without one the process lives as well."""
    if process.settings.backbeat:
        with guard.handling("answer"):
            from chorus.telemetry.client import Backbeat, link_of

            return Backbeat(process.settings, link_of(process.settings), process.log)
    return None


async def bind(host: str, port: int) -> socket.socket:
    """A listening socket; waits out a predecessor that still holds the port."""
    deadline = asyncio.get_running_loop().time() + BIND_FOR_S
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    while True:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline:
                raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from None
            await asyncio.sleep(BIND_AGAIN_S)
            continue
        listener.setblocking(False)
        return listener


def _server(app: ASGIApp) -> Server:
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        # What is wrong with a request is answered to its client and counted; what is wrong with an answer
        # the guard tells, at a bounded rate.
        log_level="critical",
        lifespan="off",
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
        http=Connection,
        ws="none",
    )
    return Server(config)

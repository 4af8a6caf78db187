"""The serving side of a process's hub connection: its offers, and the handlers that run for callers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from chorus.hub import frames, guard
from chorus.hub.errors import HubError, error_from
from chorus.hub.frames import FrameProtocol
from chorus.hub.streams import ByteStream
from chorus.hub.types import Handler, Reply, Request, StreamHandler


@dataclass(frozen=True, slots=True)
class Offer:
    """A service and who may use it."""

    handler: Handler
    peers: bool
    streams: StreamHandler | None


class Server:
    """Runs handlers for the calls of one process's connection. Its owner makes and keeps streams."""

    def __init__(self, name: str, open_stream: Callable[[int, FrameProtocol], ByteStream]) -> None:
        self.offers: dict[str, Offer] = {}
        self._name = name
        self._open_stream = open_stream
        self._by_call: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def on_call(self, link: FrameProtocol, ident: int, head: dict[str, Any], payload: bytes) -> None:
        """Takes a CALL of the hub."""
        asked = head.get("head") or {}
        if not isinstance(asked, dict):
            _refuse(link, ident, "invalid", "head: an object is needed")
            return
        request = Request(
            service=str(head.get("service")),
            method=str(head.get("method")),
            head=asked,
            payload=payload,
            peer=head.get("peer"),
            process=head.get("process"),
            timeout=float(head.get("timeout_ms") or 10_000) / 1000,
        )
        offer = self.offers.get(request.service)
        if offer is None:
            _refuse(link, ident, "unavailable", f"{self._name} does not offer {request.service}")
        elif head.get("m") == "serve":
            task = _begun(self._answer(link, ident, offer.handler, request))
            if not task.done():
                self._tasks.add(task)
                self._by_call[ident] = task
        elif head.get("m") != "stream":
            _refuse(link, ident, "invalid", f"unknown call {head.get('m')!r}")
        elif offer.streams is None:
            _refuse(link, ident, "invalid", f"{request.service} takes no streams")
        else:
            stream = self._open_stream(int(head["stream"]), link)
            link.send(frames.OK, ident)
            self.spawn(self.run_stream(offer.streams, request, stream))

    def on_cancel(self, ident: int) -> None:
        """The caller does not want its answer any more."""
        task = self._by_call.pop(ident, None)
        if task is not None:
            # One that has not begun yet never comes to its end, where it would leave by itself.
            task.add_done_callback(self._tasks.discard)
            task.cancel()

    def on_lost(self) -> None:
        """The connection is gone. Handlers that run go on (they may matter), unheard."""
        self._by_call.clear()

    def close(self) -> None:
        """Cancels every handler."""
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs a handler; kept until it is done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, link: FrameProtocol, ident: int, handler: Handler, request: Request) -> None:
        try:
            reply = await handler(request)
            if isinstance(reply, Reply):
                link.send(frames.OK, ident, reply.head, reply.payload)
            else:
                link.send(frames.OK, ident, reply)
        except HubError as error:
            _refuse(link, ident, error.code, error.message)
        except frames.FrameError as error:
            _refuse(link, ident, "too_large", str(error))
        except Exception as error:
            guard.failed("request", error, service=request.service, method=request.method)
            _refuse(link, ident, "internal", f"{type(error).__name__} in {self._name}")
        finally:
            task = asyncio.current_task()
            self._tasks.discard(task)
            # After a new connection its number may be another call's by now.
            if self._by_call.get(ident) is task:
                del self._by_call[ident]

    async def run_stream(self, handler: StreamHandler, request: Request, stream: ByteStream) -> None:
        """Runs a stream's handler and ends the stream as the handler ends."""
        try:
            await handler(request, stream)
            await stream.end()
        except HubError as error:
            await stream.close(error)
        except asyncio.CancelledError:
            await stream.close()
            raise
        except Exception as error:
            guard.failed("stream", error, service=request.service, method=request.method)
            await stream.close(error_from("internal", f"{type(error).__name__} in {self._name}"))


def _begun(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task for `work`. From Python 3.12 on it has run until it waits for something, or to its end."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


def _refuse(link: FrameProtocol, ident: int, code: str, message: str) -> None:
    link.send(frames.ERR, ident, {"code": code, "message": message})

"""The asyncio client of the hub: one connection, many calls in flight, back by itself after a loss."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from chorus.hub import frames, guard
from chorus.hub.calls import Calls, OnOk
from chorus.hub.errors import HubClosed, HubError, HubInvalid, HubTooLarge, HubUnavailable, error_from
from chorus.hub.feeds import DEFAULT_QUEUE, EntryFeed, EventFeed, Feed, LogFeed, Subscription
from chorus.hub.methods import HubMethods
from chorus.hub.serving import Offer, Server
from chorus.hub.streams import ByteStream
from chorus.hub.types import Handler, Reply, StreamHandler

log = logging.getLogger(__name__)

# Waits between attempts to reach the hub: doubled each time, with up to half of it as jitter.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 0.25
# The hub answers hello at once; a process that listens but does not answer is not the hub.
HELLO_TIMEOUT_S = 5.0
# Entries on their way to a follower.
FOLLOW_QUEUE = 256


class Hub(HubMethods):
    """A process's connection to the core. Make one with `await Hub.connect(path, name)`."""

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self.path = Path(path)
        self.name = name
        self.peer_id = ""
        self.agent_id = ""
        self.version = ""
        self.connected = asyncio.Event()
        self._closed = False
        self._link: frames.FrameProtocol | None = None
        self._lost = asyncio.Event()
        self._next_call = 0
        self._next_stream = -1
        self._calls = Calls(self._cancel)
        self._feeds: list[Feed[Any]] = []
        self._by_sub: dict[int, Feed[Any]] = {}
        self._streams: dict[int, ByteStream] = {}
        self._server = Server(name, self._add_stream)
        self._runner: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, path: str | os.PathLike[str], name: str, *, retry_for: float | None = None
    ) -> Self:
        """Connects as process `name`; tries for `retry_for` seconds (None: for ever)."""
        hub = cls(path, name)
        hub._runner = asyncio.create_task(hub._run(), name=f"hub:{name}")
        try:
            async with asyncio.timeout(retry_for):
                await hub.connected.wait()
        except TimeoutError:
            await hub.close()
            raise HubUnavailable(f"no hub answered at {path} within {retry_for} s") from None
        except BaseException:
            await hub.close()
            raise
        return hub

    async def close(self) -> None:
        """Ends the connection; calls in flight fail with HubClosed, feeds end."""
        if self._closed:
            return
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        if self._link is not None:
            self._link.close()
        self._on_lost(None)
        for feed in self._feeds:
            feed.on_end()
        self._server.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Calls

    async def call(
        self,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        """One of the hub's own methods. While the connection is away, waits for it within `timeout`."""
        if not self.connected.is_set():
            await self._wait_connected(timeout)
        return await self._call(method, head, payload, timeout)

    async def request(
        self,
        peer: str,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        """Asks the process of `peer` that offered `service` to peers. Repeat only what is safe to."""
        return self._inner(
            await self.call("request", _routed(service, method, head, timeout, peer), payload, timeout)
        )

    async def call_service(
        self,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        """Asks the sibling process that offered `service`."""
        return self._inner(await self.call("call", _routed(service, method, head, timeout), payload, timeout))

    async def offer(
        self, service: str, handler: Handler, *, peers: bool = False, streams: StreamHandler | None = None
    ) -> None:
        """Serves `service` to siblings, and with `peers` to other agents; offered anew after a reconnect."""
        self._server.offers[service] = Offer(handler, peers, streams)
        await self.call("offer", {"service": service, "peers": peers})

    async def open_stream(
        self,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        *,
        peer: str | None = None,
        timeout: float = 10.0,
    ) -> ByteStream:
        """Opens a byte stream to a service of `peer` (None: of this agent)."""
        if not self.connected.is_set():
            await self._wait_connected(timeout)
        link = self._link
        if link is None:
            raise HubUnavailable("not connected to the hub")
        # Streams made here are odd; chosen before the call, so that nothing after its OK is missed.
        self._next_stream += 2
        stream = self._add_stream(self._next_stream, link)
        try:
            routed = {**_routed(service, method, head, timeout), "peer": peer, "stream": stream.ident}
            await self._call("stream", routed, b"", timeout)
        except BaseException:
            await stream.close()
            raise
        return stream

    # Feeds

    def subscribe(self, *topics: str, queue: int = DEFAULT_QUEUE) -> Subscription:
        """Messages on `topics`: `async with hub.subscribe(…) as messages`, then `async for`."""
        return Subscription(self, topics, queue)

    def follow(self, from_index: int, *, queue: int = FOLLOW_QUEUE) -> EntryFeed:
        """Committed entries from `from_index` on, none missing."""
        return EntryFeed(self, from_index, queue)

    def events(self, *, queue: int = DEFAULT_QUEUE) -> EventFeed:
        """What happens in the core."""
        return EventFeed(self, queue)

    def log_follow(self, start: int, *, type: str | None = None, queue: int = FOLLOW_QUEUE) -> LogFeed:
        """Entries of the log from number `start` on, then those to come."""
        return LogFeed(self, start, type, queue)

    async def attach_feed(self, feed: Feed[Any]) -> None:
        """For feeds: subscribes and keeps the feed for reconnects."""
        self._feeds.append(feed)
        try:
            if not self.connected.is_set():
                await self._wait_connected(None)
            if not feed.sub:
                await self._attach(feed)
        except BaseException:
            self._feeds.remove(feed)
            raise

    async def detach_feed(self, feed: Feed[Any]) -> None:
        """For feeds: unsubscribes."""
        if feed in self._feeds:
            self._feeds.remove(feed)
        sub, feed.sub = feed.sub, 0
        if self._by_sub.pop(sub, None) is not None and self.connected.is_set():
            try:
                await self._call("unsubscribe", {"sub": sub}, b"", HELLO_TIMEOUT_S)
            except HubError:
                log.debug("unsubscribing failed; the connection is going away")

    def give_credit(self, feed: Feed[Any], n: int) -> None:
        """For feeds: lets `n` more items come."""
        if self._link is not None:
            self._link.send(frames.CREDIT, feed.sub, {"n": n})

    async def _attach(self, feed: Feed[Any]) -> None:
        def attached(head: dict[str, Any]) -> None:
            self._by_sub[int(head["sub"])] = feed
            feed.on_attached(int(head["sub"]))

        await self._call(feed.method, feed.request_head(), b"", HELLO_TIMEOUT_S, attached)

    # The connection

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        wait = RETRY_FIRST_S
        while True:
            self._lost.clear()
            try:
                _, link = await loop.create_unix_connection(
                    lambda: frames.FrameProtocol(self._on_frame, self._on_lost), str(self.path)
                )
                self._link = link
                await self._introduce()
            except (OSError, HubError) as error:
                log.debug("hub at %s not reached: %s", self.path, error)
                if self._link is not None:
                    self._link.close()
                self._on_lost(None)
                await asyncio.sleep(wait * (1 + random.random() / 2))
                wait = min(wait * 2, RETRY_MAX_S)
                continue
            wait = RETRY_FIRST_S
            self.connected.set()
            await self._lost.wait()
            log.info("connection to the hub lost; connecting again")

    async def _introduce(self) -> None:
        hello = await self._call("hello", {"name": self.name, "pid": os.getpid()}, b"", HELLO_TIMEOUT_S)
        self.peer_id = str(hello.head.get("peer_id", ""))
        self.agent_id = str(hello.head.get("agent_id", ""))
        self.version = str(hello.head.get("version", ""))
        for service, offer in list(self._server.offers.items()):
            await self._call("offer", {"service": service, "peers": offer.peers}, b"", HELLO_TIMEOUT_S)
        for feed in list(self._feeds):
            await self._attach(feed)

    async def _wait_connected(self, timeout: float | None) -> None:
        if self._closed:
            raise HubClosed("this hub client is closed")
        try:
            async with asyncio.timeout(timeout):
                await self.connected.wait()
        except TimeoutError:
            raise HubUnavailable(f"not connected to the hub at {self.path}") from None

    async def _call(
        self,
        method: str,
        head: Mapping[str, Any] | None,
        payload: bytes,
        timeout: float,
        on_ok: OnOk | None = None,
    ) -> Reply:
        link = self._link
        if link is None or self._closed:
            raise HubClosed("not connected to the hub")
        if link.paused:
            await link.drained()
        self._next_call = ident = (self._next_call + 1) & 0xFFFFFFFF
        answer = self._calls.add(ident, method, timeout, on_ok)
        try:
            link.send(frames.CALL, ident, {"m": method, **head} if head else {"m": method}, payload)
            return await answer
        except frames.FrameError as error:
            raise HubTooLarge(str(error)) from None
        except asyncio.CancelledError:
            if self._calls.take(ident) is not None:
                link.send(frames.CANCEL, ident)
            raise
        finally:
            self._calls.take(ident)

    def _cancel(self, ident: int) -> None:
        if self._link is not None:
            self._link.send(frames.CANCEL, ident)

    def _on_frame(self, op: int, ident: int, head: bytes, payload: bytes) -> None:
        # An error here must not reach the transport, which would give the whole connection up. Not through
        # `guard.handling`: a context manager made for each frame took a fifth of a call.
        try:
            self._take(op, ident, head, payload)
        except guard.FATAL:
            raise
        except Exception as error:
            guard.failed("frame", error)

    def _take(self, op: int, ident: int, head: bytes, payload: bytes) -> None:
        if op == frames.EVENT:
            feed = self._by_sub.get(ident)
            if feed is not None:
                feed.on_event(orjson.loads(head) if head else {}, payload)
        elif op == frames.OK or op == frames.ERR:
            waiting = self._calls.take(ident)
            if waiting is None or waiting.future.done():
                return
            try:
                said: dict[str, Any] = orjson.loads(head) if head else {}
                if op == frames.OK and waiting.on_ok is not None:
                    waiting.on_ok(said)
            except (ValueError, TypeError, LookupError) as error:
                guard.failed("frame", error)
                waiting.future.set_exception(HubInvalid("the answer's head cannot be read"))
                return
            if op == frames.OK:
                waiting.future.set_result(Reply(said, payload))
            else:
                waiting.future.set_exception(error_from(str(said.get("code")), str(said.get("message", ""))))
        elif op == frames.CALL:
            if self._link is not None:
                self._server.on_call(self._link, ident, orjson.loads(head), payload)
        elif op == frames.CANCEL:
            self._server.on_cancel(ident)
        else:
            stream = self._streams.get(ident)
            if stream is not None:
                stream.on_frame(op, head, payload)

    def _on_lost(self, error: Exception | None) -> None:
        self._link = None
        self.connected.clear()
        self._lost.set()
        if error is not None:
            log.warning("connection to the hub broke: %s", error)
        self._calls.lose()
        self._by_sub.clear()
        for feed in self._feeds:
            feed.on_lost()
        for stream in list(self._streams.values()):
            stream.on_lost(HubClosed("the connection to the hub was lost"))
        self._streams.clear()
        self._server.on_lost()

    # Streams

    def _add_stream(self, ident: int, link: frames.FrameProtocol) -> ByteStream:
        stream = ByteStream(ident, link, self._forget_stream)
        self._streams[ident] = stream
        return stream

    def _forget_stream(self, ident: int) -> None:
        self._streams.pop(ident, None)

    @staticmethod
    def _inner(reply: Reply) -> Reply:
        head = reply.head.get("head") or {}
        if not isinstance(head, dict):
            raise HubInvalid("the answer has no head: an object is needed")
        return Reply(head, reply.payload)


def _routed(
    service: str, method: str, head: Mapping[str, Any] | None, timeout: float, peer: str | None = None
) -> dict[str, Any]:
    routed: dict[str, Any] = {"service": service, "method": method, "timeout_ms": max(1, int(timeout * 1000))}
    if head:
        routed["head"] = dict(head)
    if peer is not None:
        routed["peer"] = peer
    return routed

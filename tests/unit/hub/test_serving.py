"""Handlers of one process's calls: a cancel reaches the call it names, also after a new connection."""

from __future__ import annotations

import asyncio
from typing import Any

from chorus.hub import ByteStream, Request, frames
from chorus.hub.serving import Offer, Server


class Link(frames.FrameProtocol):
    """Goes nowhere."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda _: None)

    def send(self, *_: Any) -> None:
        return


async def test_a_call_of_an_old_connection_is_not_taken_for_a_newer_one_of_its_number() -> None:
    ends = {"old": asyncio.Event(), "new": asyncio.Event()}
    cancelled: list[str] = []

    async def handler(request: Request) -> dict[str, Any]:
        try:
            await ends[request.method].wait()
        except asyncio.CancelledError:
            cancelled.append(request.method)
            raise
        return {}

    server = Server("p", lambda ident, link: ByteStream(ident, link, lambda _: None))
    server.offers["s"] = Offer(handler, True, None)
    server.on_call(Link(), 1, {"m": "serve", "service": "s", "method": "old"}, b"")
    (old,) = server._tasks
    server.on_lost()
    server.on_call(Link(), 1, {"m": "serve", "service": "s", "method": "new"}, b"")
    (new,) = server._tasks - {old}
    await asyncio.sleep(0)
    ends["old"].set()
    await old
    server.on_cancel(1)
    assert new.cancelling()
    await asyncio.wait([new])
    assert cancelled == ["new"]
    assert not server._by_call


async def test_a_call_that_has_ended_is_forgotten() -> None:
    async def handler(request: Request) -> dict[str, Any]:
        return {}

    server = Server("p", lambda ident, link: ByteStream(ident, link, lambda _: None))
    server.offers["s"] = Offer(handler, True, None)
    server.on_call(Link(), 1, {"m": "serve", "service": "s", "method": "m"}, b"")
    # From Python 3.12 on it has ended already.
    await asyncio.gather(*server._tasks)
    assert not server._tasks
    assert not server._by_call


async def test_a_call_that_is_cancelled_at_once_is_forgotten() -> None:
    async def handler(request: Request) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    server = Server("p", lambda ident, link: ByteStream(ident, link, lambda _: None))
    server.offers["s"] = Offer(handler, True, None)
    server.on_call(Link(), 1, {"m": "serve", "service": "s", "method": "m"}, b"")
    (task,) = server._tasks
    server.on_cancel(1)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert task.cancelled()
    assert not server._tasks
    assert not server._by_call

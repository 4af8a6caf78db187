"""What others say ends its own handling and nothing more: messages, requests, streams, answers, frames."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson
import pytest

from chorus.hub import ByteStream, HubError, HubInvalid, HubRefused, Request, frames, guard
from chorus.hub.client import Hub
from chorus.hub.feeds import EntryFeed, Subscription
from chorus.hub.serving import Offer, Server
from chorus.testing.fake_hub import FakeMesh


@pytest.fixture
def failures() -> Iterator[Counter[tuple[str, str]]]:
    counted: Counter[tuple[str, str]] = Counter()
    before, guard.count = guard.count, lambda what, error: counted.update([(what, error)])
    yield counted
    guard.count = before


class Link(frames.FrameProtocol):
    """Keeps what a server sends."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda _: None)
        self.sent: list[tuple[int, int, dict[str, Any]]] = []

    def send(self, op: int, ident: int, head: Mapping[str, Any] | None = None, payload: bytes = b"") -> None:
        frames.encode(op, ident, head, payload)
        self.sent.append((op, ident, dict(head or {})))


async def test_each_goes_on_after_what_it_could_not_handle(failures: Counter[tuple[str, str]]) -> None:
    async def items() -> AsyncIterator[int]:
        for n in range(6):
            yield n

    handled = []

    async def handle(n: int) -> None:
        if n == 1:
            raise RecursionError
        if n == 2:
            raise OverflowError("too far")
        if n == 3:
            "\ud800".encode()
        handled.append(n)

    await guard.each(items(), handle, "gossip")
    assert handled == [0, 4, 5]
    assert failures == {
        ("gossip", "RecursionError"): 1,
        ("gossip", "OverflowError"): 1,
        ("gossip", "UnicodeEncodeError"): 1,
    }


@pytest.mark.parametrize("error", [MemoryError, asyncio.CancelledError, KeyboardInterrupt, LookupError])
def test_what_has_to_end_the_process_passes_through(error: type[BaseException]) -> None:
    with pytest.raises(error), guard.handling("gossip", raising=(LookupError,)):
        raise error


async def test_a_request_that_breaks_its_handler_is_answered(failures: Counter[tuple[str, str]]) -> None:
    async def handler(request: Request) -> dict[str, Any]:
        match request.method:
            case "deep":
                raise RecursionError("x" * 100_000)
            case "refused":
                raise HubRefused("with a half \ud800 of a pair, and " + "x" * 100_000)
            case _:
                return {"text": "\ud800"}

    async def stream(request: Request, stream: ByteStream) -> None:
        raise OverflowError

    server, link = Server("p", lambda ident, link: ByteStream(ident, link, lambda _: None)), Link()
    server.offers["s"] = Offer(handler, True, stream)
    for ident, method in enumerate(("deep", "refused", "answer")):
        server.on_call(link, ident, {"m": "serve", "service": "s", "method": method}, b"")
    server.on_call(link, 3, {"m": "serve", "service": "s", "method": "deep", "head": [1]}, b"")
    server.on_call(link, 4, {"m": "stream", "service": "s", "method": "x", "stream": 9}, b"")
    await asyncio.gather(*server._tasks)
    codes = {ident: head.get("code") for op, ident, head in link.sent if op != frames.OK}
    assert codes == {0: "internal", 1: "refused", 2: "internal", 3: "invalid", 9: "internal"}
    assert all(len(orjson.dumps(head)) < 10_000 for _, _, head in link.sent)
    assert failures == {
        ("request", "RecursionError"): 1,
        ("request", "TypeError"): 1,
        ("stream", "OverflowError"): 1,
    }


async def test_a_head_that_cannot_be_read_breaks_its_call_and_no_connection(
    failures: Counter[tuple[str, str]],
) -> None:
    class Peer(Hub):
        def call_pending(self) -> asyncio.Task[Any]:
            self._link = Link()
            return asyncio.create_task(self._call("m", None, b"", 30.0))

    hub = Peer("/nowhere", "p")
    call = hub.call_pending()
    await asyncio.sleep(0)
    hub._on_frame(frames.CALL, 1, b"\xff", b"")
    hub._on_frame(frames.EVENT, 1, b"\xff", b"")
    hub._on_frame(frames.OK, hub._next_call, b'{"a": 1e999}', b"")
    with pytest.raises(HubInvalid, match="cannot be read"):
        await call
    assert failures == {("frame", "JSONDecodeError"): 2}


@pytest.mark.parametrize("head", [["x"], "text", 3, True])
async def test_an_answer_without_an_object_is_an_error(head: Any) -> None:
    class Peer(Hub):
        async def call(self, *_: Any, **__: Any) -> Any:
            return guard_reply

    from chorus.hub import Reply

    guard_reply = Reply({"head": head})
    with pytest.raises(HubError, match="an object is needed"):
        await Peer("/nowhere", "p").request("peer", "s", "m")


def test_an_event_that_cannot_be_read_costs_its_place_and_no_more(failures: Counter[tuple[str, str]]) -> None:
    given = []

    class Source:
        async def attach_feed(self, feed: Any) -> None: ...

        async def detach_feed(self, feed: Any) -> None: ...

        def give_credit(self, feed: Any, n: int) -> None:
            given.append(n)

    feed = Subscription(Source(), ("chorus/tasks",), 4)
    feed.on_attached(1)
    for _ in range(100):
        feed.on_event({}, b"{}")
    assert feed.get_nowait() is None
    assert sum(given) == 100
    assert failures == {("event", "KeyError"): 100}


def test_an_entry_that_nobody_can_read_has_no_body_and_is_not_missing() -> None:
    feed = EntryFeed(FakeMesh().hub("a", "coordinator"), 1, 8)
    feed.on_event({"index": 7, "type": "submit", "id": "e"}, b'{"a": 1e999}')
    entry = feed.get_nowait()
    assert entry is not None
    assert (entry.index, entry.type, entry.body) == (7, "submit", None)


async def test_a_lasting_loop_begins_again_until_it_is_done(failures: Counter[tuple[str, str]]) -> None:
    errors = [KeyError("x"), ValueError("y")]

    async def loop() -> None:
        if errors:
            raise errors.pop(0)

    await guard.lasting(loop, "event", pause_s=0)
    assert failures == {("event", "KeyError"): 1, ("event", "ValueError"): 1}
    errors.append(KeyError("x"))
    with pytest.raises(LookupError):
        await guard.lasting(loop, "event", pause_s=0, raising=(LookupError,))

"""What a subscription delivers: bounded queues paid for with credit, attached anew after a loss."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import orjson

from chorus.hub import guard
from chorus.hub.errors import error_from
from chorus.hub.types import Entry, Message

T = TypeVar("T")

# Items that may be on their way before the reader has taken one (docs/ipc.md).
DEFAULT_QUEUE = 1024
# `gap` of the first message after the connection came back: something may be missing, nobody can count it.
UNCOUNTED_GAP = -1


class FeedSource(Protocol):
    """The hub's client as a feed sees it."""

    async def attach_feed(self, feed: Feed[Any]) -> None:
        """Subscribes; keeps the feed so that it is attached anew after a reconnect."""

    async def detach_feed(self, feed: Feed[Any]) -> None:
        """Unsubscribes and forgets."""

    def give_credit(self, feed: Feed[Any], n: int) -> None:
        """Lets `n` more items come."""


class Feed(Generic[T]):
    """An asynchronous iterator over a subscription. Opens itself at first use, or with `async with`."""

    method = "subscribe"

    def __init__(self, source: FeedSource, queue: int) -> None:
        self.queue = max(1, queue)
        self.sub = 0
        self._source = source
        self._items: deque[T] = deque()
        self._taken = 0
        self._opened = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def request_head(self) -> dict[str, Any]:
        """The head of the subscribing call; asked again after a reconnect."""
        return {"queue": self.queue}

    def decode(self, head: dict[str, Any], payload: bytes) -> T:
        """Makes an item of an EVENT frame."""
        raise NotImplementedError

    def on_attached(self, sub: int) -> None:
        """The hub knows the subscription as `sub`; items may follow at once."""
        self.sub = sub
        self._taken = 0

    def on_lost(self) -> None:
        """The connection is gone; the source will attach this feed again."""
        self.sub = 0

    def on_event(self, head: dict[str, Any], payload: bytes) -> None:
        """Takes an EVENT frame. What cannot be read is counted and left out."""
        try:
            item = self.decode(head, payload)
        except Exception as error:
            guard.failed("event", error)
            self._pay()
            return
        self._items.append(item)
        self._wake()

    def on_end(self) -> None:
        """No more will come: the hub's client was closed."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def open(self) -> Self:
        """Subscribes; returns when the hub has confirmed."""
        if not self._opened:
            self._opened = True
            await self._source.attach_feed(self)
        return self

    async def close(self) -> None:
        """Unsubscribes; what is queued can still be read."""
        if not self._closed:
            self._closed = True
            self._wake()
            if self._opened:
                await self._source.detach_feed(self)

    def get_nowait(self) -> T | None:
        """The next item if one is here."""
        if not self._items:
            return None
        item = self._items.popleft()
        self._pay()
        return item

    def _pay(self) -> None:
        """One item less is on its way or waits."""
        self._taken += 1
        # Half a queue at a time: one CREDIT frame for many items, and the sender never runs dry.
        if self._taken * 2 >= self.queue and self.sub:
            self._source.give_credit(self, self._taken)
            self._taken = 0

    async def get(self) -> T:
        """The next item; StopAsyncIteration after the end."""
        await self.open()
        while True:
            if self._items:
                item = self.get_nowait()
                assert item is not None
                return item
            if self._closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await self.get()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Subscription(Feed[Message]):
    """Messages on topics, in the order of their arrival."""

    def __init__(self, source: FeedSource, topics: tuple[str, ...], queue: int) -> None:
        super().__init__(source, queue)
        self.topics = topics
        self._was_lost = False

    def request_head(self) -> dict[str, Any]:
        return {"topics": list(self.topics), "queue": self.queue}

    def on_lost(self) -> None:
        super().on_lost()
        self._was_lost = True

    def decode(self, head: dict[str, Any], payload: bytes) -> Message:
        gap = head.get("gap", 0)
        if self._was_lost:
            self._was_lost = False
            gap = UNCOUNTED_GAP
        return Message(
            head["topic"],
            head.get("type", ""),
            head.get("from", ""),
            head.get("timestamp", 0),
            head.get("id", ""),
            head.get("seq", 0),
            gap,
            payload,
        )


class EntryFeed(Feed[Entry]):
    """Committed entries in index order, none missing, also across reconnects."""

    method = "raft.follow"

    def __init__(self, source: FeedSource, from_index: int, queue: int) -> None:
        super().__init__(source, queue)
        self.next_index = from_index

    def request_head(self) -> dict[str, Any]:
        return {"from": self.next_index, "queue": self.queue}

    def on_event(self, head: dict[str, Any], payload: bytes) -> None:
        # After a reconnect the feed starts behind what is queued here, so nothing comes twice.
        self.next_index = int(head["index"]) + 1
        super().on_event(head, payload)

    def decode(self, head: dict[str, Any], payload: bytes) -> Entry:
        return Entry(
            index=int(head["index"]),
            term=int(head.get("term") or 0),
            stamp_ms=int(head.get("stamp") or 0),
            type=str(head.get("type") or ""),
            id=str(head.get("id") or ""),
            author=str(head.get("author") or ""),
            seen=int(head.get("seen") or 0),
            body=_body(payload),
            reason=str(head.get("reason") or ""),
        )


def _body(payload: bytes) -> Any:
    """The body of a committed entry; None for one that is no JSON to this agent, which the table refuses. The
    reader of the log must not end by what stands in it.
    """
    try:
        return orjson.loads(payload) if payload else None
    except orjson.JSONDecodeError:
        return None


class LogFeed(Feed[dict[str, Any]]):
    """Entries of the log as they are appended, none missing, also across reconnects."""

    method = "log.follow"

    def __init__(self, source: FeedSource, start: int, type: str | None, queue: int) -> None:
        super().__init__(source, queue)
        self.next_seq = start
        self.type = type

    def request_head(self) -> dict[str, Any]:
        return {"from": self.next_seq, "type": self.type, "queue": self.queue}

    def on_event(self, head: dict[str, Any], payload: bytes) -> None:
        if "seq" in head:
            self.next_seq = int(head["seq"]) + 1
        super().on_event(head, payload)

    def decode(self, head: dict[str, Any], payload: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = orjson.loads(payload) if payload else head
        return entry

    async def get(self) -> dict[str, Any]:
        """The next entry; raises the hub's error when the log cannot be read on."""
        entry = await super().get()
        if "error" in entry and "seq" not in entry:
            raise error_from(str(entry["error"]["code"]), str(entry["error"]["message"]))
        return entry


class LogVerifyFeed(Feed[dict[str, Any]]):
    """A verification of the log: `progress` events, then one `end` (docs/ipc.md)."""

    method = "log.verify"

    def decode(self, head: dict[str, Any], payload: bytes) -> dict[str, Any]:
        return head


class EventFeed(Feed[dict[str, Any]]):
    """What happens in the core: `kind` is peer_up, peer_down, leader, role and so on (docs/ipc.md)."""

    method = "events"

    def decode(self, head: dict[str, Any], payload: bytes) -> dict[str, Any]:
        return head

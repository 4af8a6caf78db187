"""Anything that bytes and JSON can say, for property tests of what takes messages and requests of peers.

Needs hypothesis, which only tests have.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from chorus.hub import ByteStream, Handler, Message, StreamHandler, frames
from chorus.hub.serving import Offer, Server
from chorus.testing.fake_hub import FakeMesh

# Far beyond what a handler's own deadline lets it take.
PATIENCE_S = 30.0
# Some hundred cases tell of a broken handler within seconds; all of them run with CHORUS_HEAVY=1.
EXAMPLES = 100_000 if os.environ.get("CHORUS_HEAVY") else 300

examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

# Each of these ended a process before.
SPOILED = {
    "a time beyond the calendar": b'{"start_by": "9999-12-31T23:59:59-14:00", "title": "t"}',
    "not UTF-8": b'{"title": "\xff\xfe"}',
    "a lone surrogate": b'{"title": "\\ud800", "score": 0, "mesh": "\\udfff"}',
    "no finite number": b'{"title": "t", "priority": 1e999, "term": 1e999}',
    "a long integer": b'{"title": "t", "priority": %s, "term": %s}' % (b"1" * 400, b"1" * 400),
    "deep nesting": b'{"title": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "no JSON": b"{",
}

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "\ud800", "\x00", "", "x" * 70_000, "../..",
        "01J00000000000000000000000", "a" * 64, 2**53 + 1, 2**63, -(2**64), 10**400, 1e308, float("inf"),
        float("nan"), True, False, None, [], {},
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "task_id", "title", "start_by", "submitted_at", "commands", "env", "source", "depends_on", "priority",
        "resources", "kind", "files", "sha256", "attempt", "mesh", "term", "score", "leader", "state",
        "reason",
        "hash", "quorum", "open_s", "licence", "agent_id", "profile", "after", "stream", "path", "items",
        "budget_tokens", "timeout_s", "stdin",
    ]
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)
LEAVES = ODD | TEXTS | st.integers() | st.floats()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXTS, inner, max_size=6),
    max_leaves=12,
)
TASKS = st.fixed_dictionaries({"title": st.just("t") | LEAVES}, optional={
    "task_id": ODD, "start_by": ODD, "submitted_at": ODD, "commands": st.lists(ODD, max_size=2) | ODD,
    "env": st.dictionaries(TEXTS, ODD, max_size=2), "source": VALUES, "depends_on": st.lists(ODD, max_size=2),
    "priority": ODD, "timeout_s": ODD, "resources": VALUES, "artifacts": st.lists(ODD, max_size=2),
})  # fmt: skip
OBJECTS = TASKS | st.dictionaries(NAMES | TEXTS, VALUES, max_size=6)
# Python writes lone surrogates as escapes and infinities as words, as a hostile program would.
RAW = (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=80)


class Link(frames.FrameProtocol):
    """Counts the answers to each call."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda _: None)
        self.answers: dict[int, int] = {}

    def send(self, op: int, ident: int, head: Mapping[str, Any] | None = None, payload: bytes = b"") -> None:
        frames.encode(op, ident, head, payload)
        if op in (frames.OK, frames.ERR):
            self.answers[ident] = self.answers.get(ident, 0) + 1


def raw_message(topic: str, type: str, data: bytes) -> Message:
    """A message as if the gate had let it in."""
    envelope = b'{"type":"' + type.encode() + b'","from":"x","data":' + data + b"}"
    return Message(topic, type, "peer-x", 1, "0", 1, 0, envelope)


async def ask(handler: Handler, streams: StreamHandler | None, method: str, head: Any, body: bytes) -> None:
    """A peer's request and a peer's stream of these contents: each has one answer, and nothing is left."""
    link = Link()

    def open_stream(ident: int, link: frames.FrameProtocol) -> ByteStream:
        stream = ByteStream(ident, link, lambda _: None)
        stream.on_frame(frames.DATA, b"", body)
        stream.on_frame(frames.END, b"", b"")
        return stream

    server = Server("p", open_stream)
    server.offers["s"] = Offer(handler, True, streams)
    asked = {"service": "s", "method": method, "head": head, "peer": "peer-x", "timeout_ms": 200}
    server.on_call(link, 1, {"m": "serve", **asked}, body)
    server.on_call(link, 2, {"m": "stream", "stream": 8, **asked}, body)
    async with asyncio.timeout(PATIENCE_S):
        while server._tasks:
            await asyncio.gather(*server._tasks)
            await asyncio.sleep(0)
    assert link.answers == {1: 1, 2: 1}
    assert not server._by_call


def spoil(mesh: FakeMesh, agent: str, message: Message) -> None:
    """Delivers a message to an agent's processes."""
    head = {
        "topic": message.topic,
        "type": message.type,
        "from": "peer-x",
        "timestamp": 1,
        "id": "0",
        "seq": 1,
    }
    for hub in mesh.agent(agent).hubs:
        hub._deliver_topic(message.topic, head, message.raw)

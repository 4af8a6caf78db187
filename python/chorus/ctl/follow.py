"""Follows server-sent events over any number of broken connections and agents, without a gap or a repeat."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from chorus.ctl.client import Client, Refused, Unreachable
from chorus.ctl.problems import MESH_FAILED, CtlError

# How long a mesh may be out of reach before following is given up: agents restart, leaders are elected.
GIVE_UP_S: Final = 120.0
PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
# A chunk of output in JSON, with room to spare.
EVENT_MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event, of a task as a rule."""

    id: str
    event: str
    data: dict[str, Any]

    def output(self) -> bytes:
        """The bytes of an `output` event."""
        if "base64" in self.data:
            try:
                return base64.b64decode(self.data["base64"])
            except (ValueError, TypeError):
                raise CtlError("the output of the task cannot be read: bad base64", MESH_FAILED) from None
        return str(self.data.get("text", "")).encode("utf-8", "surrogatepass")


def follow(client: Client, task_id: str, last: str = "") -> Iterator[TaskEvent]:
    """The events of a task after `last` to its end; raises Unreachable when the mesh stays away."""
    yield from events(client, f"/api/v1/tasks/{task_id}/events", f"task {task_id}", last, {})


def events(client: Client, path: str, what: str, last: str, params: dict[str, Any]) -> Iterator[TaskEvent]:
    """The server-sent events at a path after `last`, to the event `end`, or to the word that none come."""
    pause = PAUSE_FIRST_S
    lost_since: float | None = None
    while True:
        problem = "the connection ended"
        try:
            with client.stream(path, {"Last-Event-ID": last} if last else None, **params) as response:
                if response.status_code == httpx.codes.NO_CONTENT:
                    return
                for event in parse(response.iter_raw()):
                    pause, lost_since = PAUSE_FIRST_S, None
                    last = event.id or last
                    yield event
                    if event.event == "end":
                        return
        except httpx.TransportError as error:
            problem = str(error) or type(error).__name__
        except Refused as error:
            # An agent that has just come back may not have caught up with the table.
            if error.status not in (404, 503):
                raise
            problem = str(error)
        now = time.monotonic()
        lost_since = lost_since or now
        if now - lost_since > GIVE_UP_S:
            raise Unreachable(f"{what} cannot be followed any more: {problem}", MESH_FAILED)
        client.pass_over()
        time.sleep(pause)
        pause = min(pause * 2, PAUSE_MAX_S)


def parse(chunks: Iterator[bytes]) -> Iterator[TaskEvent]:
    """Server-sent events out of bytes. The server's `data` is one line."""
    rest = b""
    for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\n\n")
        if len(rest) > EVENT_MAX_BYTES:
            raise CtlError(f"an event is longer than {EVENT_MAX_BYTES} bytes", MESH_FAILED)
        for block in blocks:
            event = _event(block)
            if event is not None:
                yield event


def _event(block: bytes) -> TaskEvent | None:
    fields: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.removeprefix(b" ")
    if b"data" not in fields:
        return None
    try:
        data = orjson.loads(fields[b"data"])
        ident, event = fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode()
    except ValueError as error:
        raise CtlError(f"an event cannot be read: {error}", MESH_FAILED) from None
    if not isinstance(data, dict):
        raise CtlError("an event cannot be read: its data is no JSON object", MESH_FAILED)
    return TaskEvent(ident, event, data)

"""What an attempt's executor, or who holds a copy, tells of it: numbered events, and that no more will come.

Its agent may be any member's, so that nothing it says is taken for well-formed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

import orjson

from chorus.api.context import LOOK_AGAIN_S
from chorus.api.holders import from_holder
from chorus.api.sse import Event
from chorus.hub import ByteStream, Hub, HubError
from chorus.table.reader import TableReader
from chorus.table.rows import AttemptRow

OPEN_TIMEOUT_S: Final = 5.0
# One event of an executor: a chunk of output in JSON, with room to spare.
LINE_MAX_BYTES: Final = 4 * 1024 * 1024
# An attempt that the mesh has ended, and whose executor has said nothing new for so many looks, is told from
# the table: about ten seconds, in which a sandbox is stopped and its result counted.
SILENT_LOOKS_MAX: Final = 5
_NAME: Final = re.compile(r"[a-z][a-z_]{0,31}")
_ID: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """After which event a reader goes on."""

    attempt: int = 0
    n: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}-{self.n}"


@dataclass(frozen=True, slots=True)
class Over:
    """No more events will come: how many there are, and the state that the last one, `end`, names."""

    events: int
    ended: str | None


def place_of(ident: str) -> Place | None:
    """The place that an event's id names; None for what is no id."""
    match = _ID.fullmatch(ident)
    return Place(int(match[1]), int(match[2])) if match else None


async def tell(
    hub: Hub, table: TableReader, attempt: AttemptRow, after: int, is_open: Callable[[], bool]
) -> AsyncGenerator[list[Event] | Over]:
    """The events after number `after` as they come, then `Over` if the attempt is over.

    Raises HubError when the executor cannot be asked, or is silent although the attempt has ended.
    """
    head = {"task_id": attempt.task_id, "attempt": attempt.attempt, "after": after, "follow": True}

    async def ask(peer: str) -> tuple[ByteStream, bytes]:
        stream = await hub.open_stream("output", "events", head, peer=peer, timeout=OPEN_TIMEOUT_S)
        try:
            # Who holds an attempt that has ended says at once whether it has something.
            return stream, b"" if attempt.open else await _read(stream, is_open)
        except BaseException:
            await stream.close()
            raise

    stream, first = await from_holder(table, attempt, ask)
    async with stream:
        rest = b""
        while chunk := first or await _read(stream, is_open):
            first = b""
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_MAX_BYTES:
                raise HubError(f"an event is longer than {LINE_MAX_BYTES} bytes", code="too_large")
            batch: list[Event] = []
            for said in map(_said, lines):
                if isinstance(said, Over):
                    if batch:
                        yield batch
                    yield said
                    return
                place = place_of(said.id) if said.id is not None else None
                if place is None:
                    batch.append(said)
                elif place.attempt == attempt.attempt and place.n > after:
                    after = place.n
                    batch.append(said)
            if batch:
                yield batch


async def _read(stream: ByteStream, is_open: Callable[[], bool]) -> bytes:
    silent = 0
    while True:
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                return await stream.read()
        except TimeoutError:
            silent = 0 if is_open() else silent + 1
        if silent >= SILENT_LOOKS_MAX:
            raise HubError("it does not say how the attempt ended", code="timeout")


def _said(line: bytes) -> Event | Over:
    try:
        value = orjson.loads(line)
        if "over" in value:
            ended = value["over"]["ended"]
            return Over(int(value["over"]["events"]), None if ended is None else str(ended))
        ident, name, data = value["id"], value["event"], value["data"]
        if place_of(ident) is None or not _NAME.fullmatch(name) or not isinstance(data, dict):
            raise ValueError(ident)
        return Event(ident, name, data)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError):
        return Event(None, "gap", {"lost": "1 event", "detail": "an event of the executor could not be read"})

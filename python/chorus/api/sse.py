"""Server-sent events: how events travel to a client, whatever they are about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import StreamingResponse

from chorus.api.context import Context

# Proxies cut idle streams after a minute or less.
HEARTBEAT_S: Final = 15.0
_HEARTBEAT: Final = b": still here\n\n"
# How long an EventSource waits before it comes back.
_RETRY_LINE: Final = b"retry: 1000\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Without an id it is outside the numbering; a reader that comes back may see it again."""

    id: str | None
    event: str
    data: dict[str, Any]


def event_stream(context: Context, batches: AsyncGenerator[list[Event]]) -> StreamingResponse:
    """An answer that goes on until the batches end, the client leaves or the agent stops."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_bytes(context, batches), media_type="text/event-stream", headers=headers)


async def _bytes(context: Context, batches: AsyncGenerator[list[Event]]) -> AsyncGenerator[bytes]:
    yield _RETRY_LINE
    stop = asyncio.create_task(context.stopping.wait())
    coming: asyncio.Task[list[Event]] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(batches))
            await asyncio.wait((coming, stop), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                batch = coming.result()
                coming = None
                if not batch:
                    return
                yield b"".join(map(encode_event, batch))
            elif stop.done():
                return
            else:
                yield _HEARTBEAT
    finally:
        stop.cancel()
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await batches.aclose()


async def _next(batches: AsyncGenerator[list[Event]]) -> list[Event]:
    # An empty batch is the end: StopAsyncIteration cannot leave a task.
    return await anext(batches, [])


def encode_event(event: Event) -> bytes:
    """An event as SSE lines. JSON has no raw newline, so `data` is one line."""
    name, ident = event.event, f"id: {event.id}\n" if event.id else ""
    try:
        data = orjson.dumps(event.data)
    except orjson.JSONEncodeError as error:
        # Somebody else's event can be read and still be nested deeper than may be written.
        name, data = "gap", orjson.dumps({"lost": "1 event", "detail": f"it cannot be told: {error}"})
    return f"{ident}event: {name}\ndata: ".encode() + data + b"\n\n"

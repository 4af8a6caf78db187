"""Routes for what a task says: events as SSE, raw logs. Bytes only pass through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from chorus.api.context import Context, Here
from chorus.api.holders import from_holder
from chorus.api.problems import Problem, from_hub
from chorus.api.sse import Event, event_stream
from chorus.api.story import RETRY_FIRST_S, RETRY_MAX_S, Story, parse_place
from chorus.api.tasks import check_task_id
from chorus.api.teller import OPEN_TIMEOUT_S
from chorus.hub import ByteStream, HubError
from chorus.table.rows import AttemptRow, TaskRow
from chorus.wire.times import rfc3339

# A refusal comes at once; an answer's head does not wait longer than this for output that may never come.
FIRST_BYTES_S: Final = 0.25

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])


_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}},
    204: {"description": "the task has ended, and nothing comes after Last-Event-ID"},
}
_TEXT: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/plain": {}}}}


@router.get("/{task_id}/events", response_class=StreamingResponse, responses=_EVENTS)
async def get_events(
    context: Here, task_id: str, last_event_id: Annotated[str | None, Header(max_length=64)] = None
) -> Response:
    """The task's whole story as server-sent events, live until its end; goes on after Last-Event-ID.

    204 when nothing comes after that: an EventSource then stays away.
    """
    row = await context.task(check_task_id(task_id))
    place = parse_place(last_event_id)
    story = Story(context, row.task_id, place).events()
    if not last_event_id or row.open:
        return event_stream(context, story)
    first = await anext(story, None)
    return Response(status_code=204) if first is None else event_stream(context, _from(first, story))


async def _from(first: list[Event], rest: AsyncGenerator[list[Event]]) -> AsyncGenerator[list[Event]]:
    async with aclosing(rest):
        yield first
        async for batch in rest:
            yield batch


@router.get("/{task_id}/logs", response_class=StreamingResponse, responses=_TEXT)
async def get_logs(
    context: Here,
    task_id: str,
    stream: Annotated[Literal["stdout", "stderr", "both"], Query()] = "both",
    follow: Annotated[bool, Query(description="stay until the task ends")] = False,
    attempt: Annotated[int | None, Query(ge=1, le=1_000_000, description="the newest when absent")] = None,
) -> Response:
    """The raw output of the commands as it was written."""
    row = await context.task(check_task_id(task_id), newest=True)
    check_kept(row)
    known = [a for a in context.table.attempts(row.task_id) if a.claimed_at is not None]
    if attempt is not None:
        known = [a for a in known if a.attempt == attempt]
        if not known:
            raise Problem(404, f"task {row.task_id} has no attempt {attempt} that was claimed")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    media_type = "text/plain; charset=utf-8"
    if not known and not (follow and row.open):
        return Response(b"", media_type=media_type, headers=headers)
    if known:
        newest = known[-1]
        opened, first = await _open_logs(context, newest, stream, follow and newest.open)
        chunks = _logs(context, newest, opened, first, stream, follow and attempt is None)
    else:
        chunks = _coming_logs(context, row.task_id, 0, stream)
    return StreamingResponse(chunks, media_type=media_type, headers=headers)


async def _open_logs(
    context: Context, attempt: AttemptRow, stream: str, follow: bool
) -> tuple[ByteStream, bytes]:
    """The stream and what came first on it: an executor that has nothing says so after it was opened."""
    head = {"task_id": attempt.task_id, "attempt": attempt.attempt, "stream": stream, "follow": follow}
    wait = RETRY_FIRST_S

    async def ask(peer: str) -> tuple[ByteStream, bytes]:
        opened = await context.hub.open_stream("output", "logs", head, peer=peer, timeout=OPEN_TIMEOUT_S)
        return opened, await _first(opened)

    while True:
        try:
            return await from_holder(context.table, attempt, ask)
        except HubError as error:
            # An executor hears of its claim at about the time that the table shows it.
            if error.code != "not_found" or not attempt.open or wait >= RETRY_MAX_S:
                raise holder_away(attempt, error) from None
        await asyncio.sleep(wait)
        wait *= 2


async def _logs(
    context: Context, attempt: AttemptRow, opened: ByteStream, first: bytes, stream: str, follow: bool
) -> AsyncGenerator[bytes]:
    async with opened:
        yield first
        async for chunk in until_stopped(context, opened):
            yield chunk
    if follow:
        async for chunk in _coming_logs(context, attempt.task_id, attempt.attempt, stream):
            yield chunk


async def _coming_logs(context: Context, task_id: str, after: int, stream: str) -> AsyncGenerator[bytes]:
    """The output of attempts that are yet to come, while the task is open."""
    with context.changes.watch(task_id) as watch:
        while not context.stopping.is_set():
            row = await context.task(task_id)
            coming = [
                a for a in context.table.attempts(task_id) if a.attempt > after and a.claimed_at is not None
            ]
            if coming:
                after = coming[0].attempt
                try:
                    opened, first = await _open_logs(context, coming[0], stream, True)
                except Problem:
                    continue  # its executor is gone; the mesh will offer the task again
                async with opened:
                    yield first
                    async for chunk in until_stopped(context, opened):
                        yield chunk
            elif not row.open:
                return
            else:
                await watch.changed()


async def _first(opened: ByteStream) -> bytes:
    """The first bytes, or none when the command has nothing to say yet."""
    try:
        async with asyncio.timeout(FIRST_BYTES_S):
            return await opened.read()
    except TimeoutError:
        return b""
    except BaseException:
        await opened.close()
        raise


async def until_stopped(context: Context, opened: ByteStream) -> AsyncGenerator[bytes]:
    """The bytes of a stream, to its end or until this process is to stop."""

    # Closing the stream wakes the read, without a task for each chunk.
    async def close() -> None:
        await context.stopping.wait()
        await opened.close()

    closing = asyncio.create_task(close())
    try:
        async for chunk in opened:
            yield chunk
    except HubError:
        if not context.stopping.is_set():
            raise
    finally:
        closing.cancel()


def check_kept(row: TaskRow) -> None:
    """Raises the 410 for a task whose output and artifacts were removed by hand."""
    if row.removed_at is not None:
        by = f" by {row.removed_by}" if row.removed_by else ""
        raise Problem(
            410,
            f"the output and artifacts of task {row.task_id} were removed{by} on {rfc3339(row.removed_at)}",
        )


def holder_away(attempt: AttemptRow, error: HubError) -> Problem:
    """What it means to the client that the agent of an attempt does not give what it holds."""
    if error.code in ("unavailable", "timeout", "closed"):
        who = attempt.agent_id or attempt.agent
        return Problem(
            503,
            f"agent {who}, which holds this, cannot be reached now: {error.message}",
            headers={"Retry-After": "1"},
        )
    return from_hub(error)

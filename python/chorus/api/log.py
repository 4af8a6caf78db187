"""Routes for this agent's signed log: pages of it, its entries as they come, its verification."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from chorus.api.context import Context, Here
from chorus.api.problems import Problem
from chorus.api.sse import Event, event_stream
from chorus.api.tasks import PAGE_MAX, json_response
from chorus.core.log import Log
from chorus.hub import HubError

LOG_PAGE_MAX: Final = 1000
SEQ_MAX: Final = 2**53
# The id of the event that ends a verification.
VERIFIED: Final = "end"

router = APIRouter(prefix="/api/v1", tags=["log"])

Seq = Annotated[int | None, Query(ge=0, le=SEQ_MAX, description="`next` of the page before, or any number")]


# What a follower gets; others get JSON.
_FOLLOWED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get("/log", responses=_FOLLOWED)
async def get_log(
    context: Here,
    cursor: Seq = None,
    limit: Annotated[int, Query(ge=1, le=LOG_PAGE_MAX)] = PAGE_MAX,
    type: Annotated[str | None, Query(max_length=128, description="only entries of this type")] = None,
    order: Annotated[Literal["oldest", "newest"], Query(description="what comes first")] = "oldest",
    follow: Annotated[bool, Query(description="server-sent events: the entries from now on")] = False,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """This agent's signed log. A page may hold fewer entries than `limit` while `next` is not null.

    Followed, each entry is an event with its number as id; a Last-Event-ID resumes after it, else `cursor`
    says where to begin.
    """
    if follow:
        if order == "newest":
            raise Problem(422, "order=newest cannot be followed: what comes, comes in its order")
        start = _after(last_event_id) if last_event_id else cursor
        if start is None:
            start = int((await context.hub.log_info())["length"])
        return event_stream(context, _entries(context, start, type))
    newest_first = order == "newest"
    page = await context.hub.log_read(cursor, limit, type=type, newest_first=newest_first)
    at_end = page.next == 0 if newest_first else page.next >= page.length
    return json_response(
        {
            "items": page.entries,
            "next": None if at_end else str(page.next),
            "length": page.length,
            "key": (await context.hub.log_info()).get("key"),
        }
    )


def _after(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        message = "expected a number as in the id of an event"
        raise Problem(400, f"Last-Event-ID: {message}", errors=[("Last-Event-ID", message)])
    return min(int(text), SEQ_MAX) + 1


async def _entries(context: Context, start: int, type: str | None) -> AsyncGenerator[list[Event]]:
    async with context.hub.log_follow(start, type=type) as entries:
        try:
            async for entry in entries:
                yield [Event(str(entry["seq"]), "entry", entry)]
        except HubError as error:
            yield [Event(None, "error", _said(error))]


@router.get("/log/verify", response_class=StreamingResponse)
async def verify_log(
    context: Here, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> Response:
    """Checks the whole log: every entry against the tree, the tree against the signature.

    Server-sent events: `progress` with `checked` and `length`, and at last `end` with `genuine` and, when
    that is false, `error`. 204 to an EventSource that comes back after the end.
    """
    if last_event_id == VERIFIED:
        return Response(status_code=204)
    return event_stream(context, _verification(Log(context.hub).verify()))


async def _verification(events: AsyncIterator[dict[str, Any]]) -> AsyncGenerator[list[Event]]:
    try:
        async for event in events:
            kind = str(event["kind"])
            ident = VERIFIED if kind == "end" else None
            yield [Event(ident, kind, {name: value for name, value in event.items() if name != "kind"})]
    except HubError as error:
        yield [Event(VERIFIED, "end", {"genuine": False, "error": _said(error)})]


def _said(error: HubError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message}

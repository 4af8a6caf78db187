"""UCXI's routes for many addresses: queries by pattern and by words, and news of versions as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from chorus.api import ucxi_content as parts
from chorus.api import ucxi_docs as docs
from chorus.api.context import UCXL, Context, Here
from chorus.api.sse import Event, event_stream
from chorus.api.tasks import PAGE_DEFAULT, Limit
from chorus.api.ucxi import Address
from chorus.api.ucxi_answers import Code, Refusal, success
from chorus.core import Ucxl, UcxlError
from chorus.curator.index import Hit
from chorus.table.rows import Page, VersionRow
from chorus.table.versions import Pattern

# The table counts its entries in 64 bits.
_INDEX_MAX_DIGITS: Final = 18

router = APIRouter(prefix="/ucxi/v1", tags=["ucxi"], responses=docs.ERRORS)


@router.get("/query", responses=docs.QUERY)
async def query(
    context: Here,
    address: Address,
    text: Annotated[str | None, Query(max_length=1000, description="words to find in the content")] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
) -> Response:
    """The versions that a pattern names: `any` for a part, a path that is empty or ends in / for all below.

    `*^` lists the latest of what is there, `*~` every version with the tombstones, newest first, `*~N` and
    the others the one of each address that they mean. With `text` the best come first, on one page.
    """
    pattern = parts.parse(address)
    if text is not None:
        return await _search(context, pattern, text, limit)
    if cursor is None:
        await context.catch_up()
    try:
        page = _page(context, pattern, limit, cursor)
    except (ValueError, OverflowError):
        message = "cursor: use `next` of the page before, unchanged, with the same address"
        raise Refusal(Code.BAD_REQUEST, message, details={"field": "cursor"}) from None
    data = {"items": [parts.described(row) for row in page.items], "next": page.next}
    return success(Code.SUCCESS, f"{len(page.items)} on this page", data)


def _page(context: Context, pattern: Ucxl, limit: int, cursor: str | None) -> Page[VersionRow]:
    versions = context.table.ucxl
    every = pattern.temporal == "*~"
    below = pattern.path == "" or pattern.path.endswith("/")
    names = (pattern.agent, pattern.role, pattern.project, pattern.task)
    if every and "any" not in names and not below:
        return versions.history(str(pattern.at("*^")), limit=limit, cursor=cursor)

    def number(latest: int) -> int | None:
        try:
            return pattern.resolve(latest)
        except UcxlError:
            return None

    agent, role, project, task = (None if name == "any" else name for name in names)
    return versions.query(
        Pattern(agent, role, project, task, pattern.path, below),
        number=number,
        every=every,
        deleted=pattern.temporal != "*^",
        limit=limit,
        cursor=cursor,
    )


async def _search(context: Context, pattern: Ucxl, text: str, limit: int) -> Response:
    items: list[dict[str, Any]] = []
    for hit in await context.texts.search(text, pattern=str(pattern), limit=limit):
        row = _found(context, hit)
        if row is not None:
            items.append({**parts.described(row), "score": hit.score, "snippet": hit.snippet})
    return success(Code.SUCCESS, f"{len(items)} found", {"items": items, "next": None})


def _found(context: Context, hit: Hit) -> VersionRow | None:
    """The version of a text; the index does not number records, of which an address has one as a rule."""
    place = str(Ucxl.parse(hit.address).at("*^"))
    if hit.version is not None:
        return context.table.ucxl.version(place, hit.version)
    rows = context.table.ucxl.history(place).items
    return next((row for row in rows if row.hash == hit.hash), None)


@router.get("/subscribe", response_class=StreamingResponse, responses=docs.SUBSCRIBE)
async def subscribe(
    context: Here, address: Address, last_event_id: Annotated[str | None, Header(max_length=64)] = None
) -> Response:
    """Versions at the addresses of a pattern as server-sent events, from now on or after Last-Event-ID.

    An event's id is the index of its entry in the table, the same on every agent: go on at any of them.
    """
    pattern = parts.parse(address)
    place = context.table.applied() if not last_event_id else _index(last_event_id)
    return event_stream(context, _news(context, pattern, place))


async def _news(context: Context, pattern: Ucxl, place: int) -> AsyncGenerator[list[Event]]:
    with context.changes.watch(UCXL) as watch:
        while True:
            rows = context.table.ucxl.after(place)
            if not rows:
                await watch.changed()
                continue
            place = rows[-1].index
            events = [_event(row) for row in rows if pattern.matches(Ucxl.parse(row.address))]
            if events:
                yield events


def _event(row: VersionRow) -> Event:
    return Event(str(row.index), "deleted" if row.deleted else "version", parts.described(row))


def _index(text: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) <= _INDEX_MAX_DIGITS):
        message = "Last-Event-ID: expected the id of an event, an index of the table"
        raise Refusal(Code.BAD_REQUEST, message, details={"field": "Last-Event-ID"})
    return int(text)

"""Routes for decision records: listed, searched, read, voted on; and a task's context of earlier ones."""

from __future__ import annotations

import re
from itertools import islice
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from chorus.api.bodies import read_model
from chorus.api.context import Context, Here
from chorus.api.header_values import header_text
from chorus.api.problems import Problem
from chorus.api.tasks import (
    DECIDE_TIMEOUT_S,
    PAGE_DEFAULT,
    Cursor,
    Filter,
    Limit,
    bad_cursor,
    check_task_id,
    json_response,
)
from chorus.decisions import KINDS, component
from chorus.hub import HubError, HubNotFound
from chorus.table.reader import DecisionFilter
from chorus.table.rows import DecisionRow, Page
from chorus.table.view import ballot_view
from chorus.wire.schema import Schema
from chorus.wire.times import rfc3339

# A sibling that holds the record answers within this, or the DHT is asked.
SIBLING_TIMEOUT_S: Final = 2.0
# A record is found by asking the members near it.
RECORD_TIMEOUT_S: Final = 20.0
# The leader is asked, and then the members that hold the records.
CONTEXT_TIMEOUT_S: Final = 40.0
# As many hits of a search are looked through for those that fit the other filters.
HITS_MAX: Final = 1_000
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}")

Kind = Literal["task_result", "hmmm_outcome", "vote"]

router = APIRouter(prefix="/api/v1", tags=["decisions"])


class VoteBody(Schema):
    """A vote. The first one on a decision opens the ballot, on the terms given with it."""

    model_config = ConfigDict(extra="forbid")

    vote: Literal["approve", "reject", "abstain"]
    reason: Annotated[str, Field(max_length=2000)] = ""
    by: Annotated[str, Field(max_length=128, description="who votes through this agent")] = ""
    quorum: Annotated[int | None, Field(ge=1, le=1000, description="a majority of the members")] = None
    open_s: Annotated[float | None, Field(ge=0, le=366 * 86_400, description="a day")] = None


@router.get("/decisions")
async def get_decisions(
    context: Here,
    task_id: Annotated[str | None, Query(max_length=26)] = None,
    agent: Filter = None,
    project: Filter = None,
    kind: Annotated[Kind | None, Query()] = None,
    since: Annotated[AwareDatetime | None, Query(description="RFC 3339")] = None,
    text: Annotated[str | None, Query(max_length=1000, description="all of these words, best first")] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """The mesh's decision records, newest first; with `text` those that this agent may read, best first."""
    wanted = DecisionFilter(
        task_id=task_id,
        agent=agent,
        # Addresses write a project in their own characters.
        project=None if project is None else component(project or "chorus"),
        kind=kind,
        since_ms=None if since is None else int(since.timestamp() * 1000),
    )
    if text is not None:
        if cursor is not None:
            raise bad_cursor()
        hits = context.table.decisions_among(await _search(context, text), **wanted)
        page = Page(list(islice(hits, limit)), None)
    else:
        if cursor is None:
            await context.catch_up()
        try:
            page = context.table.decisions(limit=limit, cursor=cursor, **wanted)
        except (ValueError, OverflowError):
            raise bad_cursor() from None
    return json_response({"items": [_decision(row) for row in page.items], "next": page.next})


@router.get("/decisions/{hash}")
async def get_decision(context: Here, hash: str) -> Response:
    """One decision record, byte for byte as signed: `chorusctl decision verify` checks a saved copy."""
    row = await _row(context, hash)
    record = await _record(context, row)
    headers = {
        "ETag": f'"{row.hash}"',
        "Chorus-Decision-Address": header_text(row.address),
        "Chorus-Decision-Author": header_text(row.author),
    }
    return Response(record, 200, headers, "application/json")


@router.get("/decisions/{hash}/votes")
async def get_votes(context: Here, hash: str) -> Response:
    """The newest vote on a decision; 404 while there was none."""
    row = await _row(context, hash)
    ballot = context.table.ballot(row.hash)
    if ballot is None:
        raise Problem(404, f"nobody has voted on {row.hash} yet; POST here to vote")
    return json_response(ballot_view(ballot))


_VOTE_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": VoteBody.model_json_schema()}},
    }
}


@router.post("/decisions/{hash}/votes", status_code=201, openapi_extra=_VOTE_BODY)
async def post_vote(context: Here, hash: str, request: Request) -> Response:
    """Votes for this agent's member of the mesh; again, until the ballot is over, to change its vote."""
    row = await _row(context, hash)
    body = await read_model(request, VoteBody)
    head = {"hash": row.hash, "choice": body.vote, "reason": body.reason, "by": body.by}
    head |= body.model_dump(include={"quorum", "open_s"}, exclude_none=True)
    reply = await context.hub.call_service("coordinator", "votes.cast", head, timeout=DECIDE_TIMEOUT_S)
    return json_response(reply.head["ballot"], 201)


@router.get("/context")
async def get_context(
    context: Here,
    task: Annotated[str, Query(max_length=26, description="the task's id")],
    budget: Annotated[int | None, Query(ge=1, le=32_000, description="tokens; 2000")] = None,
) -> Response:
    """The few earlier decisions that matter for a task, each verified by this agent."""
    row = await context.task(check_task_id(task))
    head = {"task_id": row.task_id} | ({} if budget is None else {"budget_tokens": budget})
    reply = await context.hub.call_service("coordinator", "context", head, timeout=CONTEXT_TIMEOUT_S)
    by = context.table.member(str(reply.head["by"]))
    return json_response({**reply.head, "by": by.agent_id if by is not None else reply.head["by"]})


async def _row(context: Context, hash: str) -> DecisionRow:
    if _HASH.fullmatch(hash) is None:
        raise Problem(404, "no such decision: its hash is 64 hexadecimal digits")
    row = context.table.decision(hash.lower())
    if row is None:
        await context.catch_up()
        row = context.table.decision(hash.lower())
    if row is None:
        raise Problem(
            404, f"no decision {hash} is known in this mesh; GET /api/v1/decisions lists the known ones"
        )
    return row


async def _search(context: Context, text: str) -> list[str]:
    if not context.texts.available:
        message = "the index is not there yet; list decisions without text"
        raise Problem(503, message, headers={"Retry-After": "1"})
    return [hit.hash for hit in await context.texts.search(text, limit=HITS_MAX, kinds=KINDS)]


async def _record(context: Context, row: DecisionRow) -> bytes:
    """From this agent's own store when it wrote the record, else from the DHT, opened with our keys."""
    try:
        local = await context.hub.call_service(
            "executor", "decision", {"hash": row.hash}, timeout=SIBLING_TIMEOUT_S
        )
        if local.payload:
            return local.payload
    except HubError:
        pass  # not ours, or the executor is away: the DHT has it
    try:
        # With the DHT switched off somewhere, its author is the one to ask.
        value = await context.hub.dht_get("decision", row.hash, hints=(row.author,), timeout=RECORD_TIMEOUT_S)
        return value.payload
    except HubNotFound:
        message = (
            "the record is listed, but no reachable agent holds it now; try again when its author is back"
        )
        raise Problem(503, message, headers={"Retry-After": "5"}) from None


def _decision(row: DecisionRow) -> dict[str, Any]:
    return {
        "hash": row.hash,
        "address": row.address,
        "kind": row.kind,
        "task_id": row.task_id,
        "attempt": row.attempt,
        "agent_id": row.agent_id,
        "author": row.author,
        "index": row.index,
        "created_at": rfc3339(row.at_ms),
    }

"""Routes for HMMM, in which agents reason together about plans: discussions are listed, read and joined."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chorus.api.bodies import read_model
from chorus.api.context import Context, Here
from chorus.api.problems import Problem
from chorus.api.sse import Event, event_stream
from chorus.api.tasks import PAGE_DEFAULT, Cursor, Limit, json_response
from chorus.hub import HubError
from chorus.wire.ids import ID_PATTERN, is_id
from chorus.wire.schema import Schema

SIBLING_TIMEOUT_S: Final = 10.0
# The id of the last event of a discussion.
END: Final = "end"

router = APIRouter(prefix="/api/v1/hmmm", tags=["hmmm"])


class MessageBody(Schema):
    """A person's word, said through this agent: it counts as this agent's word with the person's name."""

    model_config = ConfigDict(extra="forbid")

    message: Annotated[str, Field(min_length=1, max_length=4096, description="at most 4 KiB")]
    intent: Annotated[
        Literal["question", "answer", "update", "objection", "agreement"] | None,
        Field(description="absent: `answer` to an escalation, else `update`"),
    ] = None
    name: Annotated[str, Field(max_length=128, description="who speaks")] = ""
    parent_id: Annotated[
        str | None,
        Field(pattern=ID_PATTERN, description="the message answered; absent: the escalation or the plan"),
    ] = None


_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": MessageBody.model_json_schema()}},
    }
}
_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}},
    204: {"description": "the attempt is over, and nothing comes after Last-Event-ID"},
}


@router.get("/sessions")
async def get_sessions(
    context: Here,
    task_id: Annotated[str | None, Query(pattern=ID_PATTERN, description="only of this task")] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """The discussions that this agent has heard, newest first."""
    head: dict[str, Any] = {"task_id": task_id, "limit": limit, "cursor": cursor}
    return json_response(await _ask(context, "hmmm.list", head))


@router.get("/sessions/{session_id}")
async def get_session(context: Here, session_id: str) -> Response:
    """One discussion with all that was said in it: messages, questions for help, advice, alerts, records."""
    said = await _ask(context, "hmmm.show", {"session_id": _check(session_id)})
    return json_response({**said["session"], "items": said["items"]})


@router.post("/sessions/{session_id}/messages", status_code=201, openapi_extra=_BODY)
async def post_message(context: Here, session_id: str, request: Request) -> Response:
    """Says something as a person; 409 with the reason when it does not count."""
    ident = _check(session_id)
    body = await read_model(request, MessageBody)
    head = {"session_id": ident, **body.model_dump(exclude_none=True)}
    said = await _ask(context, "hmmm.say", head)
    return json_response(said["message"], 201)


@router.post("/reader")
async def post_reader(context: Here) -> Response:
    """Says that a person reads along through this agent, for the seconds in `for_s`; say it again before.

    Meanwhile plans wait for that person's word too, at most until the objection period is over.
    """
    return json_response(await _ask(context, "hmmm.read", {}))


@router.get("/sessions/{session_id}/events", response_class=StreamingResponse, responses=_EVENTS)
async def get_events(
    context: Here, session_id: str, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> Response:
    """A discussion as server-sent events, live until its attempt is over; goes on after Last-Event-ID.

    The numbers are those in which this agent heard what was said.
    """
    ident = _check(session_id)
    if last_event_id == END:
        return Response(status_code=204)
    after = _after(last_event_id) if last_event_id else 0
    await _ask(context, "hmmm.show", {"session_id": ident, "after": after})
    return event_stream(context, _events(context, ident, after))


async def _events(context: Context, session_id: str, after: int) -> AsyncGenerator[list[Event]]:
    with context.changes.watch(session_id) as watch:
        while True:
            try:
                said = await _ask(context, "hmmm.show", {"session_id": session_id, "after": after})
            except HubError as error:
                if error.code not in ("unavailable", "timeout", "closed"):
                    raise
                # The coordinator is about to be back, and has everything on its disk.
                await watch.changed()
                continue
            events = [_event(item) for item in said["items"]]
            if said["ended"]:
                events.append(Event(END, END, said["session"]))
            if events:
                yield events
            if said["ended"]:
                return
            after = max((int(item["n"]) for item in said["items"]), default=after)
            await watch.changed()


def _event(item: dict[str, Any]) -> Event:
    data = {name: value for name, value in item.items() if name not in ("n", "kind")}
    return Event(str(item["n"]), str(item["kind"]), data)


async def _ask(context: Context, method: str, head: dict[str, Any]) -> dict[str, Any]:
    return (await context.hub.call_service("coordinator", method, head, timeout=SIBLING_TIMEOUT_S)).head


def _check(session_id: str) -> str:
    if not is_id(session_id.upper()):
        raise Problem(404, f"{session_id[:64]!r} is no discussion's id: those have the form {ID_PATTERN}")
    return session_id.upper()


def _after(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        message = "expected a number as in the id of an event"
        raise Problem(400, f"Last-Event-ID: {message}", errors=[("Last-Event-ID", message)])
    return int(text)

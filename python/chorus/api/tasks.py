"""Routes for tasks: submit, list, read, cancel, retry. What a task said and made is `output`'s."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from chorus.api.bodies import read_model
from chorus.api.context import Context, Here
from chorus.api.listing import with_listing
from chorus.api.problems import Problem
from chorus.api.submit import read_submission, submit
from chorus.table.bounds import CANCEL_KEPT_MS
from chorus.table.reader import TableReader
from chorus.table.rows import TaskRow
from chorus.table.view import listed_view, view
from chorus.wire.ids import ID_PATTERN
from chorus.wire.schema import Schema
from chorus.wire.task import TaskSubmission

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 500
# A cancel or a retry is an entry: an election may have to be waited for.
DECIDE_TIMEOUT_S: Final = 30.0

State = Literal["announced", "claimed", "running", "completed", "failed", "cancelled", "expired"]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="items on a page")]
Cursor = Annotated[str | None, Query(max_length=64, description="`next` of the page before")]
Filter = Annotated[str | None, Query(max_length=128)]

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])

# The models inside the task's are described beside it.
_MODELS: Final = "#/paths/~1api~1v1~1tasks/post/requestBody/content/application~1json/schema/$defs/{model}"
_KNOWN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "the task, which was known under this id", "content": {"application/json": {}}}
}
_TASK_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": TaskSubmission.model_json_schema(ref_template=_MODELS)},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["task"],
                    "properties": {
                        "task": {"type": "string", "description": "the task as JSON"},
                        "source": {"type": "string", "format": "binary", "description": "tar or tar.gz"},
                        "stdin": {
                            "type": "string",
                            "format": "binary",
                            "description": "standard input of the commands",
                        },
                    },
                }
            },
        },
    }
}


class Reason(Schema):
    """The optional body of a cancel or a retry."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=1000)] = ""


def task_view(context: Context, row: TaskRow) -> dict[str, Any]:
    """The task with its attempts, as surface.md shapes it."""
    attempts, lost = context.table.attempts(row.task_id), context.table.held.lost(row.task_id)
    return view(row, attempts, leader=context.leader_id(), lost=lost)


def check_task_id(task_id: str) -> str:
    """The id when it can be one; 404 otherwise, as for any other id that is not known."""
    if len(task_id) != 26 or not task_id.isalnum() or not task_id.isascii():
        raise Problem(404, f"{task_id[:64]!r} is no task id: those have the form {ID_PATTERN}")
    return task_id.upper()


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON without the framework's detour over models."""
    return Response(orjson.dumps(content), status, headers, "application/json")


@router.post("", status_code=201, openapi_extra=_TASK_BODY, responses=_KNOWN)
async def post_task(context: Here, request: Request) -> Response:
    """Submits a task; answers when the mesh has it on disk."""
    task = await read_submission(context, request)
    reply = await submit(context, task)
    status = 201 if reply.head.get("created", True) else 200
    answer = {**reply.head["task"], **_notices(reply.head.get("notices"))}
    return json_response(answer, status, {"Location": f"/api/v1/tasks/{task.task_id}"})


def _notices(said: list[str] | None) -> dict[str, list[str]]:
    """What the submitter should know of secrets in its task; left out when there is nothing to say."""
    return {"notices": said} if said else {}


@router.get("")
async def get_tasks(
    context: Here,
    state: Annotated[State | None, Query()] = None,
    agent: Filter = None,
    project: Filter = None,
    submitted_by: Filter = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """The mesh's tasks in short, newest first; what of a task can be long, `GET …/{task_id}` shows."""
    if cursor is None:
        await context.catch_up()
    leader = context.leader_id()

    def read(table: TableReader) -> Response:
        page = table.tasks(
            state=state, agent=agent, project=project, submitted_by=submitted_by, limit=limit, cursor=cursor
        )
        items = [listed_view(row, leader=leader) for row in page.items]
        return json_response({"items": items, "next": page.next})

    try:
        return await context.listed(read)
    except (ValueError, OverflowError):
        raise bad_cursor() from None


def bad_cursor() -> Problem:
    """A cursor that no page gave."""
    return Problem(
        422, "no page begins there", errors=[("cursor", "use `next` of the page before, unchanged")]
    )


@router.get("/{task_id}")
async def get_task(context: Here, task_id: str) -> Response:
    """One task with its attempts and result."""
    row = await context.task(check_task_id(task_id), newest=True)
    return json_response(await with_listing(context, row, task_view(context, row)))


@router.post("/{task_id}/cancel", status_code=202)
async def post_cancel(context: Here, task_id: str, request: Request) -> Response:
    """Cancels a task; 409 when it has ended. Of an unknown task it is remembered for an hour: its submission
    may be under way.
    """
    task_id = check_task_id(task_id)
    row = context.table.task(task_id)
    reason = (await read_model(request, Reason, empty={})).reason
    if row is not None and not row.open:
        raise ended(row)
    head = {"task_id": task_id, "by": context.settings.agent_id, "reason": reason or "cancelled over HTTP"}
    reply = await context.hub.call_service("coordinator", "table.cancel", head, timeout=DECIDE_TIMEOUT_S)
    row = context.table.task(task_id)
    if row is None:
        kept_s = CANCEL_KEPT_MS // 1000
        why = f"the mesh knows no such task yet; one that comes with this id within {kept_s} s is cancelled"
        return json_response({"task_id": task_id, "state": None, "reason": why}, 202)
    if not reply.head.get("cancelled", True):
        raise ended(row)
    return json_response(task_view(context, row), 202)


@router.post("/{task_id}/retry", status_code=202)
async def post_retry(context: Here, task_id: str, request: Request) -> Response:
    """Offers a task again that has ended without success; 409 while it is open or when it is completed."""
    row = await context.task(check_task_id(task_id), newest=True)
    await read_model(request, Reason, empty={})
    if row.open:
        raise Problem(
            409, f"task {row.task_id} is {row.state}; cancel it or wait for its end", state=row.state
        )
    if row.state == "completed":
        raise Problem(409, f"task {row.task_id} is completed; submit it again as a new task", state=row.state)
    head = {"task_id": row.task_id}
    await context.hub.call_service("coordinator", "table.retry", head, timeout=DECIDE_TIMEOUT_S)
    return json_response(task_view(context, await context.task(row.task_id)), 202)


@router.delete("/{task_id}")
async def delete_task(context: Here, task_id: str) -> Response:
    """Removes the output and artifacts of a task that has ended, on all agents; 409 while it is open.

    What is said of it, its result and its decision records stay.
    """
    row = await context.task(check_task_id(task_id), newest=True)
    if row.open:
        raise Problem(
            409, f"task {row.task_id} is {row.state}; cancel it or wait for its end", state=row.state
        )
    if row.removed_at is None:
        head = {"task_id": row.task_id, "by": context.settings.agent_id}
        await context.hub.call_service("coordinator", "table.remove", head, timeout=DECIDE_TIMEOUT_S)
    return json_response(task_view(context, await context.task(row.task_id)))


def ended(row: TaskRow, more: str = "") -> Problem:
    """The 409 for what can only be asked of an open task; `more` says what to do instead."""
    return Problem(409, f"task {row.task_id} has ended already: {row.state}{more}", state=row.state)

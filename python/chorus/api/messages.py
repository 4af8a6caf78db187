"""The route for what a person says to a goal while it runs: its words enter before the next step."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import AfterValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from chorus.api.bodies import read_model
from chorus.api.context import Context, Here
from chorus.api.problems import RETRY_AFTER_S, Problem, from_hub
from chorus.api.tasks import check_task_id, ended, json_response
from chorus.hub import HubError
from chorus.table.rows import AttemptRow, TaskRow
from chorus.wire.ids import new_id
from chorus.wire.schema import Schema
from chorus.wire.task import TaskId, Word

TEXT_MAX_CHARS: Final = 4096
# The executor writes the words to its disk and answers.
SAY_TIMEOUT_S: Final = 10.0
_AWAY: Final = frozenset({"unavailable", "timeout", "closed"})

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("it says nothing; give some words")
    return text


class Words(Schema):
    """What is said, and by whom. Sent again under the same `id` it is said once."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARS), AfterValidator(_says_something)]
    name: Word = ""
    id: TaskId | None = None


@router.post("/{task_id}/messages", status_code=202)
async def post_message(context: Here, task_id: str, request: Request) -> Response:
    """Says something to a goal that runs; answers once the agent that runs it has it on disk.

    A person's words they are through that agent, or through the one that vouched for the task; through any
    other they are a peer's. 409 for a task with commands, and for one that has ended or does not run yet.
    """
    row = await context.task(check_task_id(task_id), newest=True)
    words = await read_model(request, Words)
    attempt = _running(context, row)
    me = context.settings.peer_id
    head = {
        "task_id": row.task_id,
        "attempt": attempt.attempt,
        "id": words.id or new_id(),
        "text": words.text,
        "name": words.name,
        # The executor holds this against who asks.
        "from": "person" if me in (attempt.agent, row.vouched_by) else "peer",
    }
    try:
        await _tell(context, attempt, head)
    except HubError as error:
        raise await _not_told(context, attempt, str(head["id"]), error) from None
    return json_response({"id": head["id"]}, 202)


def _running(context: Context, row: TaskRow) -> AttemptRow:
    """The attempt that hears it. Raises Problem (409) when there is none."""
    if row.task.get("commands"):
        raise Problem(
            409,
            f"task {row.task_id} runs commands, which hear nothing; only goals (tasks without commands) do",
            state=row.state,
        )
    if not row.open:
        raise ended(row, f"; chorusctl ask --continue {row.task_id} goes on from it (`continues`)")
    attempt = next(reversed(context.table.attempts(row.task_id)), None)
    if row.state != "running" or attempt is None or not attempt.open:
        raise Problem(
            409,
            f"task {row.task_id} is {row.state} and does not run yet; say it again once its state is running",
            state=row.state,
        )
    return attempt


async def _tell(context: Context, attempt: AttemptRow, head: dict[str, Any]) -> None:
    if attempt.agent == context.settings.peer_id:
        await context.hub.call_service("executor", "message", head, timeout=SAY_TIMEOUT_S)
    else:
        await context.hub.request(attempt.agent, "output", "message", head, timeout=SAY_TIMEOUT_S)


async def _not_told(context: Context, attempt: AttemptRow, ident: str, error: HubError) -> Problem:
    if error.code == "not_found":
        # The attempt ended just now: the table says so by now, or soon.
        row = await context.task(attempt.task_id, newest=True)
        if not row.open:
            return ended(row)
    elif error.code not in _AWAY:
        return from_hub(error)
    who = attempt.agent_id or attempt.agent
    return Problem(
        503,
        f"agent {who}, which runs task {attempt.task_id}, has not taken it: {error.message}; say it again "
        f"under the id {ident}, under which it counts once",
        headers={"Retry-After": str(RETRY_AFTER_S)},
        id=ident,
    )

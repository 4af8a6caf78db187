"""Routes about who belongs to the mesh: lists, removal, joining another mesh, recovery."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from chorus.api.bodies import read_model
from chorus.api.context import Here
from chorus.api.tasks import json_response
from chorus.table.rows import FormerRow, MemberRow
from chorus.wire.schema import Schema
from chorus.wire.times import rfc3339

# A member that votes loses its vote first; each of the two changes needs a majority.
REMOVE_TIMEOUT_S: Final = 45.0
# Every reachable member is asked how far its log goes.
PLAN_TIMEOUT_S: Final = 15.0
LEAVE_TIMEOUT_S: Final = 15.0

router = APIRouter(prefix="/api/v1/members", tags=["mesh"])


class RecoverBody(Schema):
    """Which mesh is to be recovered: the one that the plan named, so that nobody recovers another by
    mistake.
    """

    model_config = ConfigDict(extra="forbid")

    mesh: Annotated[str, Field(min_length=1, max_length=64)]
    force: bool = False


@router.get("")
async def get_members(
    context: Here,
    all: Annotated[bool, Query(description="those that were removed too")] = False,
) -> Response:
    """Who belongs to the mesh, and who votes; with `all`, who was removed from it too."""
    votes = {member.peer: member.voter for member in (await context.hub.raft_status()).members}
    items = [_member(row, votes.get(row.peer, row.voter)) for row in context.table.members()]
    if all:
        items += [_former(row) for row in context.table.former_members()]
    return json_response({"items": items, "next": None})


@router.delete("/{id}")
async def delete_member(
    context: Here,
    id: str,
    force: Annotated[bool, Query(description="also while it is present")] = False,
) -> Response:
    """Removes a member, by its agent id or peer id. It joins anew when it comes back."""
    head = {"id": id, "force": force}
    reply = await context.hub.call_service("election", "remove", head, timeout=REMOVE_TIMEOUT_S)
    return json_response({"id": id, "removed": True, **reply.head})


@router.post("/rejoin", status_code=202)
async def post_rejoin(context: Here) -> Response:
    """Has this agent leave its mesh and join the other one that it has met; 409 when it has met none."""
    reply = await context.hub.call_service("election", "rejoin", timeout=LEAVE_TIMEOUT_S)
    return json_response(reply.head, 202)


@router.get("/recovery")
async def get_recovery(context: Here) -> Response:
    """What `recover` would begin with: who votes, who is reachable with how long a log, and what this agent's
    table holds. `bringing` says that an earlier mesh's entries are still being brought into this one.
    """
    reply = await context.hub.call_service("election", "recovery", timeout=PLAN_TIMEOUT_S)
    holds = await context.listed(lambda table: table.totals())
    return json_response({**reply.head, "holds": holds, "bringing": context.settings.paths.carried.exists()})


@router.post("/recover", status_code=202)
async def post_recover(context: Here, request: Request) -> Response:
    """Founds a new mesh from this agent's log, for when a majority of the voters is lost for good.

    409 while the mesh has a leader or could have one, and, without `force`, when another member has more of
    the log; 422 when this agent is in another mesh than is named.
    """
    body = await read_model(request, RecoverBody)
    reply = await context.hub.call_service("election", "recover", body.model_dump(), timeout=LEAVE_TIMEOUT_S)
    return json_response(reply.head, 202)


def _member(row: MemberRow, votes: bool) -> dict[str, Any]:
    return {
        "agent_id": row.agent_id,
        "peer_id": row.peer,
        "raft_id": str(row.raft_id),
        "state": "present" if row.present else "away",
        "voter": votes,
        "present": row.present,
        "role": row.role,
        "version": row.version,
        "joined_at": rfc3339(row.joined_at),
        "removed_at": None,
        "reason": "",
    }


def _former(row: FormerRow) -> dict[str, Any]:
    return {
        "agent_id": row.agent_id,
        "peer_id": row.peer,
        "raft_id": str(row.raft_id),
        "state": "removed",
        "voter": False,
        "present": False,
        "role": row.role,
        "version": "",
        "joined_at": rfc3339(row.joined_at),
        "removed_at": rfc3339(row.removed_at),
        "reason": row.reason,
    }

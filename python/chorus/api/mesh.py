"""Routes about the agent and its mesh: status, agents, peers, election."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from chorus.api.bodies import read_model
from chorus.api.context import Here
from chorus.api.health import NO_MODEL
from chorus.api.license import licence_status, licence_view
from chorus.api.problems import Problem
from chorus.api.tasks import json_response
from chorus.config.values import as_json
from chorus.hub import HubError, HubNotLeader, HubRefused
from chorus.process.assignments import SERVICE as PARENT
from chorus.wire.schema import Schema
from chorus.wire.times import rfc3339

# A sibling that does not answer within this is reported as not answering.
SIBLING_TIMEOUT_S: Final = 2.0

# A load that is under way ends first, and the server has ten seconds for each.
RELOAD_TIMEOUT_S: Final = 30.0

# A hand-over is given up after a second; the leader may have to be reached first.
TRANSFER_TIMEOUT_S: Final = 15.0


class TransferBody(Schema):
    """Who is to lead."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[str | None, Field(min_length=1, max_length=128)] = None


router = APIRouter(prefix="/api/v1", tags=["mesh"])


@router.get("/status")
async def get_status(context: Here) -> Response:
    """This agent at a glance."""
    settings, assignment = context.settings, context.assignments.current
    network = await context.hub.net_state()
    raft = await context.hub.raft_status()
    mesh = context.table.mesh()
    active = len(context.table.running_on(settings.peer_id))
    me = context.table.member(settings.peer_id)
    names = context.table.agent_names()
    try:
        told = (await context.hub.call_service(PARENT, "status", timeout=SIBLING_TIMEOUT_S)).head
    except HubError:
        told = as_json(assignment)  # its parent is about to answer, or to end
    return json_response(
        {
            "agent_id": settings.agent_id,
            "peer_id": settings.peer_id,
            "version": settings.version,
            "mode": settings.mode,
            "role": assignment.role,
            "expertise": list(assignment.expertise),
            "specialization": assignment.specialization,
            "assignment": told,
            "license": licence_view(settings, licence_status(settings)),
            "cluster_id": settings.cluster_id,
            "ai": {
                "provider": settings.ai.provider,
                "detail": ", ".join(f"{name}: {settings.ai.model_of(name)}" for name in settings.ai.providers)
                or NO_MODEL,
            },
            "mesh": {
                "id": raft.mesh,
                "state": raft.role,
                "term": raft.term,
                "leader": None if raft.leader is None else names.get(raft.leader, raft.leader),
                "members": len(raft.members),
                "present": sum(row.present for row in context.table.members()),
                "voters": sum(member.voter for member in raft.members),
                "committed": raft.commit,
                "applied": context.table.applied(),
                "founded_at": None if mesh is None else rfc3339(mesh.founded_at),
            },
            "tasks": {
                "active": active,
                "max": assignment.max_tasks,
                "available": max(0, assignment.max_tasks - active),
                "accepting": bool(me and me.accepting),
                "reason": "" if me is None else me.reason,
            },
            "peers": len(network.get("peers") or ()),
            "listen": network.get("listen") or [],
        }
    )


@router.post("/reload")
async def post_reload(context: Here) -> Response:
    """Loads the assignment anew; answers what it changed, and what was refused. 409 without ASSIGN_URL."""
    try:
        reply = await context.hub.call_service(PARENT, "reload", timeout=RELOAD_TIMEOUT_S)
    except HubRefused as error:
        raise Problem(409, error.message, code=error.code) from None
    return json_response(reply.head)


@router.get("/agents")
async def get_agents(context: Here) -> Response:
    """Who can be given work: each member's abilities and load."""
    mesh = context.table.mesh()
    items = [
        {
            "agent_id": row.agent_id,
            "peer_id": row.peer,
            "self": row.peer == context.settings.peer_id,
            "present": row.present,
            # By peer id: a member that replaces another one may have its agent id.
            "leader": mesh is not None and row.peer == mesh.leader,
            "role": row.role,
            "expertise": list(row.expertise),
            "specialization": row.specialization,
            "languages": list(row.languages),
            "images": list(row.images),
            "accepting": row.accepting,
            "reason": row.reason,
            "tasks": {
                "active": row.active,
                "max": row.max_tasks,
                "available": max(0, row.max_tasks - row.active),
            },
            "version": row.version,
            "models": list(row.models),
            "model_reason": row.model_reason,
        }
        for row in context.table.members()
    ]
    return json_response({"items": items, "next": None})


@router.get("/peers")
async def get_peers(context: Here) -> Response:
    """Whom this agent is connected to, members and others that hold the network key."""
    names = context.table.agent_names()
    network = await context.hub.net_state()
    items = [
        {
            "peer_id": peer["peer"],
            "agent_id": names.get(peer["peer"]),
            "addresses": peer.get("addrs") or [],
            "agent_version": peer.get("agent_version"),
            "connected_at": rfc3339(int(peer["since"])) if peer.get("since") else None,
            "rtt_ms": peer.get("rtt_ms"),
        }
        for peer in network.get("peers") or ()
    ]
    return json_response({"items": items, "next": None})


@router.get("/election")
async def get_election(context: Here) -> Response:
    """Who leads the mesh, since when, and how this agent would stand."""
    raft = await context.hub.raft_status()
    said: dict[str, Any] = {}
    try:
        said = (await context.hub.call_service("election", "health", timeout=SIBLING_TIMEOUT_S)).head
    except HubError as error:
        said = {"detail": f"the election process does not answer: {error.message}"}
    names = context.table.agent_names()
    mesh = context.table.mesh()
    return json_response(
        {
            "mesh": raft.mesh,
            "term": raft.term,
            "state": raft.role,
            "leader": None if raft.leader is None else names.get(raft.leader, raft.leader),
            "leader_peer": raft.leader,
            "since": said.get("since"),
            "members": [
                {
                    "agent_id": names.get(member.peer),
                    "peer_id": member.peer,
                    "voter": member.voter,
                    "recent": member.recent,
                }
                for member in raft.members
            ],
            "version": None if mesh is None else mesh.version,
            "score": said.get("score"),
            "trigger": said.get("trigger"),
            "detail": said.get("detail", ""),
        }
    )


@router.post("/election/transfer")
async def post_transfer(context: Here, request: Request) -> Response:
    """Hands leadership over, to a voter that is named by its agent id or peer id, else to the best one.

    Asked of the leader; another agent answers 503 and says who leads.
    """
    to = (await read_model(request, TransferBody, empty={})).to
    head = {} if to is None else {"to": to}
    try:
        reply = await context.hub.call_service("election", "transfer", head, timeout=TRANSFER_TIMEOUT_S)
    except HubNotLeader as error:
        leader = context.leader_id()
        ask = f": ask {leader}, which leads the mesh" if leader else ""
        raise Problem(503, f"{error.message}{ask}", code=error.code) from None
    peer = reply.head.get("to")
    return json_response({"to": context.table.agent_names().get(str(peer), peer)})

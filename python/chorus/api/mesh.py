"""Routes about the agent and its mesh: status, agents, peers, members, election, decisions, log."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from chorus.api.context import Context, Here
from chorus.api.problems import Problem
from chorus.api.tasks import PAGE_DEFAULT, PAGE_MAX, Cursor, Limit, bad_cursor, json_response
from chorus.hub import HubError, HubNotFound
from chorus.table.rows import DecisionRow, MemberRow
from chorus.wire.task import rfc3339

# A sibling that does not answer within this is reported as not answering.
SIBLING_TIMEOUT_S: Final = 2.0
# A record is found by asking the members near it.
RECORD_TIMEOUT_S: Final = 20.0
LOG_PAGE_MAX: Final = 1000
_SHA256_CHARS: Final = 64

router = APIRouter(prefix="/api/v1", tags=["mesh"])


@router.get("/status")
async def get_status(context: Here) -> Response:
    """This agent at a glance."""
    settings = context.settings
    network = await context.hub.net_state()
    raft = await context.hub.raft_status()
    mesh = context.table.mesh()
    active = len(context.table.running_on(settings.peer_id))
    me = context.table.member(settings.peer_id)
    names = _names(context)
    return json_response(
        {
            "agent_id": settings.agent_id,
            "peer_id": settings.peer_id,
            "version": settings.version,
            "mode": settings.mode,
            "role": settings.role,
            "expertise": list(settings.expertise),
            "specialization": settings.specialization,
            "license": {"id": settings.license_id, "kind": settings.license_kind},
            "cluster_id": settings.cluster_id,
            "ai": {"provider": settings.ai_provider, "detail": _ai_detail(settings.ai_provider)},
            "mesh": {
                "id": raft.mesh,
                "state": raft.role,
                "term": raft.term,
                "leader": None if raft.leader is None else names.get(raft.leader, raft.leader),
                "members": len(raft.members),
                "voters": sum(member.voter for member in raft.members),
                "committed": raft.commit,
                "applied": context.table.applied(),
                "founded_at": None if mesh is None else rfc3339(mesh.founded_at),
            },
            "tasks": {
                "active": active,
                "max": settings.max_tasks,
                "available": max(0, settings.max_tasks - active),
                "accepting": bool(me and me.accepting),
                "reason": "" if me is None else me.reason,
            },
            "peers": len(network.get("peers") or ()),
            "listen": network.get("listen") or [],
        }
    )


@router.get("/agents")
async def get_agents(context: Here) -> Response:
    """Who can be given work: each member's abilities and load."""
    leader = context.leader_id()
    items = [
        {
            "agent_id": row.agent_id,
            "peer_id": row.peer,
            "self": row.peer == context.settings.peer_id,
            "present": row.present,
            "leader": row.agent_id == leader,
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
        }
        for row in context.table.members()
    ]
    return json_response({"items": items, "next": None})


@router.get("/members")
async def get_members(context: Here) -> Response:
    """Who belongs to the mesh, and who votes."""
    raft = {member.peer: member for member in (await context.hub.raft_status()).members}

    def shape(row: MemberRow) -> dict[str, Any]:
        machine = raft.get(row.peer)
        return {
            "agent_id": row.agent_id,
            "peer_id": row.peer,
            "raft_id": str(row.raft_id),
            "voter": row.voter if machine is None else machine.voter,
            "present": row.present,
            "role": row.role,
            "version": row.version,
            "joined_at": rfc3339(row.joined_at),
        }

    return json_response({"items": [shape(row) for row in context.table.members()], "next": None})


@router.get("/peers")
async def get_peers(context: Here) -> Response:
    """Whom this agent is connected to, members and others that hold the network key."""
    names = _names(context)
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
    names = _names(context)
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


@router.get("/decisions")
async def get_decisions(
    context: Here,
    task_id: Annotated[str | None, Query(max_length=26)] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Response:
    """The mesh's decision records, newest first."""
    try:
        page = context.table.decisions(limit=limit, cursor=cursor, task_id=task_id)
    except (ValueError, OverflowError):
        raise bad_cursor() from None
    return json_response({"items": [_decision(row) for row in page.items], "next": page.next})


@router.get("/decisions/{hash}")
async def get_decision(context: Here, hash: str) -> Response:
    """One decision record, byte for byte as signed: `chorusctl decision verify` checks a saved copy."""
    if len(hash) != _SHA256_CHARS or not hash.isalnum():
        raise Problem(404, "no such decision: its hash is 64 hexadecimal digits")
    row = context.table.decision(hash.lower())
    if row is None:
        raise Problem(
            404, f"no decision {hash} is known in this mesh; GET /api/v1/decisions lists the known ones"
        )
    record = await _record(context, row)
    headers = {
        "ETag": f'"{row.hash}"',
        "Chorus-Decision-Address": row.address,
        "Chorus-Decision-Author": row.author,
    }
    return Response(record, 200, headers, "application/json")


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


@router.get("/log")
async def get_log(
    context: Here,
    cursor: Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=LOG_PAGE_MAX)] = PAGE_MAX,
) -> Response:
    """This agent's signed log, oldest first."""
    info = await context.hub.log_info()
    length = int(info.get("length") or 0)
    items = await context.hub.log_read(cursor, limit) if cursor < length else []
    after = cursor + len(items)
    return json_response(
        {
            "items": items,
            "next": str(after) if after < length else None,
            "length": length,
            "key": info.get("key"),
        }
    )


def _names(context: Context) -> dict[str, str]:
    return {row.peer: row.agent_id for row in context.table.members()}


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


def _ai_detail(provider: str) -> str:
    if provider == "none":
        return "no model is configured: this agent takes only tasks with commands"
    return provider

"""UCXI's routes for one address: get, put, post, delete, announce, discover, navigate, status."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from chorus.api import ucxi_content as parts
from chorus.api import ucxi_docs as docs
from chorus.api.context import Here
from chorus.api.header_values import header_text
from chorus.api.ucxi_answers import Code, Refusal, success
from chorus.core import UcxlError
from chorus.decisions.content import VALUE_MAX_BYTES
from chorus.table.rows import VersionRow

ADDRESS_MAX_CHARS: Final = 2048
# A version never changes; what `*^` means does.
_FOR_EVER: Final = "private, max-age=31536000, immutable"
_ASK_AGAIN: Final = "private, no-cache"

router = APIRouter(prefix="/ucxi/v1", tags=["ucxi"], responses=docs.ERRORS)

Address = Annotated[
    str,
    Query(
        max_length=ADDRESS_MAX_CHARS,
        description="a UCXL address",
        examples=[docs.ADDRESS],
        json_schema_extra=docs.ANY_TIME,
    ),
]
Place = Annotated[
    str,
    Query(
        max_length=ADDRESS_MAX_CHARS,
        description="a UCXL address at *^, without `any`",
        examples=[docs.ADDRESS],
        json_schema_extra=docs.LATEST,
    ),
]
Condition = Annotated[str | None, Header(max_length=256)]
Key = Annotated[
    str | None, Header(max_length=128, description="a repeat under the same key counts once, at any agent")
]


@router.get("/get", responses=docs.GET)
async def get_content(
    context: Here,
    address: Address,
    raw: Annotated[bool, Query(description="the content itself as the body")] = False,
    if_none_match: Condition = None,
    if_match: Condition = None,
) -> Response:
    """What lies at an address, whoever wrote it and wherever it is."""
    asked = parts.parse(address)
    row = await parts.resolve(context, asked)
    parts.check_there(row)
    parts.check_permitted(context, row)
    tag = parts.etag(row)
    headers = {
        "ETag": tag,
        "Cache-Control": _FOR_EVER if asked.temporal == f"*~{row.version}" else _ASK_AGAIN,
    }
    if if_match is not None and not _names(if_match, tag):
        raise Refusal(
            Code.CONFLICT, f"the version there is {row.version}", details={**_named(row), "etag": tag}
        )
    if if_none_match is not None and _names(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    with context.room.taken(row.size):
        content = await parts.fetch(context, row)
        if raw:
            return _raw(row, content, headers)
        data = {**parts.described(row), **_readable(content)}
        return success(Code.SUCCESS, f"version {row.version} of {row.latest}", data, headers=headers)


@router.put("/put", responses=docs.PUT, openapi_extra=docs.BODY, status_code=201)
async def put_content(
    context: Here,
    request: Request,
    address: Place,
    if_match: Condition = None,
    if_none_match: Condition = None,
    idempotency_key: Key = None,
) -> Response:
    """Writes a new version; `If-Match` with an ETag only after that version, `If-None-Match: *` creates."""
    return await _write(context, request, address, create=False)


@router.post("/post", responses=docs.POST, openapi_extra=docs.BODY, status_code=201)
async def post_content(
    context: Here, request: Request, address: Place, idempotency_key: Key = None
) -> Response:
    """Writes the first version, or the first after a tombstone; 409 when something is there."""
    return await _write(context, request, address, create=True)


async def _write(context: Here, request: Request, address: str, *, create: bool) -> Response:
    place = parts.parse_writable(address)
    when = parts.conditions(request, create=create)
    content_type = parts.sent_media_type(request)
    with context.room.taken(parts.announced_bytes(request)):
        content = await parts.read_body(request, place.role)
        row = await parts.write(context, place, content, content_type, when, parts.entry_id(request))
    before = context.table.ucxl.version(row.address, row.version - 1)
    new = before is None or before.deleted
    headers = {"ETag": parts.etag(row)}
    code = Code.CREATED if new else Code.SUCCESS
    return success(code, f"version {row.version} is written", parts.described(row), headers=headers)


@router.delete("/delete", responses=docs.DELETE)
async def delete_content(
    context: Here, request: Request, address: Place, if_match: Condition = None, idempotency_key: Key = None
) -> Response:
    """Writes a tombstone: the address answers 404 from here on, its earlier versions stay readable."""
    place = parts.parse_writable(address)
    row = await parts.delete(context, place, parts.conditions(request), parts.entry_id(request))
    return success(Code.NO_CONTENT, f"deleted by version {row.version}", parts.described(row))


@router.post("/navigate", responses=docs.NAVIGATE)
async def navigate(
    context: Here,
    address: Address,
    to: Annotated[
        str,
        Query(
            pattern=r"^(back|forward|latest|first|[0-9]{1,9})$",
            description="back, forward, latest, first or N",
        ),
    ],
) -> Response:
    """Another version of the same address, seen from the one that the address names."""
    here = await parts.resolve(context, parts.parse(address))
    steps = {"back": here.version - 1, "forward": here.version + 1, "latest": here.latest, "first": 1}
    try:
        place = parts.parse(here.address).at(f"*~{steps.get(to, to)}")
    except UcxlError as error:
        raise parts.bad_address(error) from None
    row = await parts.resolve(context, place)
    data = {**parts.described(row), "from": here.version}
    return success(
        Code.SUCCESS, f"version {row.version} of {row.latest}", data, headers={"ETag": parts.etag(row)}
    )


@router.post("/announce", responses=docs.ANNOUNCE, status_code=202)
async def announce(context: Here, address: Address) -> Response:
    """Fetches what lies at an address and says in the DHT that this agent can give it."""
    row = await parts.resolve(context, parts.parse(address))
    parts.check_there(row)
    parts.check_permitted(context, row)
    _check_dht(context)
    with context.room.taken(row.size):
        await parts.fetch(context, row)
    await context.hub.dht_provide(_key(row))
    data = {
        "address": parts.at(row),
        "version": row.version,
        "hash": row.hash,
        "provider": context.settings.peer_id,
    }
    return success(Code.ACCEPTED, "announced; the mesh hears of it in its own time", data)


@router.get("/discover", responses=docs.DISCOVER)
async def discover(context: Here, address: Address) -> Response:
    """Who can give what lies at an address: its author, and the agents that announced it."""
    row = await parts.resolve(context, parts.parse(address))
    parts.check_there(row)
    announced = set(await context.hub.dht_find(_key(row))) if context.settings.dht_enabled else set()
    providers = [
        {
            "peer_id": peer,
            "agent_id": member.agent_id if (member := context.table.member(peer)) else None,
            "present": bool(member and member.present),
            "author": peer == row.author,
            "announced": peer in announced,
        }
        for peer in [row.author, *sorted(announced - {row.author})]
    ]
    data = {"address": parts.at(row), "version": row.version, "hash": row.hash, "providers": providers}
    return success(Code.SUCCESS, f"{len(providers)} known", data)


@router.get("/status", responses=docs.STATUS)
async def get_status(context: Here) -> Response:
    """UCXI on this agent: what it knows, whether it can write, what it may read."""
    settings = context.settings
    raft = await context.hub.raft_status()
    addresses, versions = context.table.ucxl.counts()
    data = {
        "agent_id": settings.agent_id,
        "peer_id": settings.peer_id,
        "mesh": raft.mesh,
        "leader": raft.leader,
        "writable": raft.leader is not None,
        "addresses": addresses,
        "versions": versions,
        "applied": context.table.applied(),
        "dht": settings.dht_enabled,
        "full_text": context.texts.available,
        "roles": sorted(context.role_keys().roles),
        "content_max_bytes": VALUE_MAX_BYTES,
    }
    return success(Code.SUCCESS, "serving", data)


def _names(header: str, tag: str) -> bool:
    """Whether an If-Match or If-None-Match names the tag."""
    listed = [item.strip().removeprefix("W/") for item in header.split(",")]
    return "*" in listed or tag in listed


def _readable(content: bytes) -> dict[str, Any]:
    try:
        return {"content": content.decode()}
    except UnicodeDecodeError:
        return {"content_base64": base64.b64encode(content).decode()}


def _raw(row: VersionRow, content: bytes, headers: dict[str, str]) -> Response:
    more = {
        "Ucxl-Address": header_text(parts.at(row)),
        "Ucxl-Author": header_text(row.author),
        # It is somebody's content on the agent's own origin: a browser may keep it, not run it.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Content-Disposition": "attachment",
        "Content-Type": parts.media_type(row),
    }
    return Response(content, headers={**headers, **more})


def _named(row: VersionRow) -> dict[str, Any]:
    return {"address": parts.at(row), "version": row.version, "hash": row.hash}


def _key(row: VersionRow) -> str:
    return f"/chorus/{row.kind}/{row.stored}"


def _check_dht(context: Here) -> None:
    if not context.settings.dht_enabled:
        raise Refusal(
            Code.SERVICE_UNAVAILABLE,
            "this agent's DHT is switched off (CHORUS_DHT_ENABLED); its author is asked",
        )

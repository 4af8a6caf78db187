"""How UCXI reads and writes: addresses, content to and from the DHT, the entry that makes a version of it.

Content is in the DHT before its version is proposed, and the answer comes after that version is applied here.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request

from chorus.api.context import Context
from chorus.api.header_values import header_text
from chorus.api.ucxi_answers import Code, Refusal
from chorus.core import CoreError, Ucxl, UcxlError
from chorus.decisions import content as dht
from chorus.hub import HubClosed, HubError, HubInvalid, HubRefused, HubUnavailable
from chorus.table import ucxl as rules
from chorus.table.rows import VersionRow
from chorus.wire.ids import encode, new_id
from chorus.wire.times import rfc3339

# How long a write waits for a leader: an election with short timings fits in, and with the default ones the
# client is told to come back rather than kept.
LEADER_WAIT_S: Final = 10.0
# A coordinator that was just killed is back within this.
REPEAT_PAUSE_S: Final = 0.2
RETRY_AFTER_S: Final = 1
DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"

# The number alone does for whoever knows only that.
_ETAG: Final = re.compile(r'"([1-9][0-9]{0,15})(?:-[0-9a-f]*)?"')
# A media type with parameters, of characters that a header may hold.
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+[ \t]*(?:;[ -~]*)?")
_MEDIA_TYPE_MAX_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of the address that a write expects (see `chorus.table.entries.VersionWritten`)."""

    create: bool = False
    live: bool = False
    expect: int | None = None


def parse(text: str) -> Ucxl:
    """An address as a client sent it."""
    try:
        return Ucxl.parse(text)
    except UcxlError as error:
        raise bad_address(error) from None


def bad_address(error: UcxlError) -> Refusal:
    """What is wrong with an address, or with a temporal for what lies there."""
    code = Code.TEMPORAL_INVALID if error.field == "temporal" else Code.INVALID_ADDRESS
    return Refusal(code, str(error), details={"field": error.field, "address": error.raw})


def parse_writable(text: str) -> Ucxl:
    """An address that can be written at: one place, at its latest."""
    address = parse(text)
    check_one_place(address)
    if address.temporal != "*^":
        raise Refusal(
            Code.TEMPORAL_INVALID,
            f"versions are only added: write at *^, not at {address.temporal}",
            details={"field": "temporal", "address": text},
        )
    return address


def check_one_place(address: Ucxl) -> None:
    """Refuses an address with `any` in it."""
    if "any" in (address.agent, address.role, address.project, address.task):
        raise Refusal(
            Code.INVALID_ADDRESS,
            "an address with `any` names several places; GET /ucxi/v1/query lists them",
            details={"address": str(address)},
        )


async def resolve(context: Context, address: Ucxl) -> VersionRow:
    """The version that an address means, tombstones too: what any agent has acknowledged counts."""
    check_one_place(address)
    place = str(address.at("*^"))
    number = address.temporal.removeprefix("*~")
    # A version that is known here never changes; which is the latest may have.
    row = context.table.ucxl.version(place, int(number)) if number.isdecimal() else None
    if row is not None:
        return row
    await context.catch_up()
    head = context.table.ucxl.head(place)
    if head is None:
        raise Refusal(
            Code.NOT_FOUND, f"nothing was written at {place} yet", details={"address": str(address)}
        )
    try:
        version = address.resolve(head.latest)
    except UcxlError as error:
        raise bad_address(error) from None
    row = context.table.ucxl.version(place, version)
    if row is None:
        raise Refusal(Code.NOT_FOUND, f"there is no version {version} of {place}")
    return row


def check_there(row: VersionRow) -> None:
    """Refuses a tombstone, naming it."""
    if row.deleted:
        raise Refusal(
            Code.NOT_FOUND,
            f"deleted by version {row.version}; earlier versions are there as *~1 to *~{row.version - 1}",
            details={"address": at(row), "deleted_by": row.version},
        )


def check_permitted(context: Context, row: VersionRow) -> None:
    """Refuses content that is sealed to roles this agent does not hold."""
    role = dht.sealed_to(Ucxl.parse(row.address).role)
    if role is None:
        return
    own, keys = context.assignments.current.role, context.role_keys()
    try:
        readers = keys.readers(role)
    except CoreError as error:
        # Longer than a role may be; somebody's entry can say so all the same.
        raise Refusal(Code.INVALID_ADDRESS, str(error), details={"address": at(row)}) from None
    if set(readers).isdisjoint(keys.roles):
        who = f"has the role {own}" if own else "has no role"
        raise Refusal(
            Code.FORBIDDEN,
            f"{at(row)} is sealed to the role {role}; agent {context.settings.agent_id} {who}",
            details={"address": at(row), "role": role, "agent_role": own},
        )


async def fetch(context: Context, row: VersionRow) -> bytes:
    """The plain content of a version that may be read here."""
    try:
        return await dht.fetch(context.hub, row)
    except HubError as error:
        if error.code in ("not_found", "tampered"):
            raise Refusal(
                Code.RESOLUTION_FAILED,
                f"{at(row)} is known, but no reachable agent holds its content unharmed now",
                details={"address": at(row), "hash": row.hash, "author": row.author},
                cause=error.message,
            ) from None
        raise


def at(row: VersionRow) -> str:
    """A version's own address, at `*~N`."""
    return str(Ucxl.parse(row.address).at(f"*~{row.version}"))


def etag(row: VersionRow) -> str:
    """The entity tag of a version: its number, which is the same on every agent, and its hash."""
    return header_text(f'"{row.version}-{row.hash}"')


def described(row: VersionRow) -> dict[str, Any]:
    """What is known about a version without its content."""
    return {
        "address": at(row),
        "version": row.version,
        "latest": row.latest,
        "deleted": row.deleted,
        "kind": row.kind,
        "content_type": media_type(row),
        "size": row.size,
        "hash": row.hash,
        "author": row.author,
        "agent_id": row.agent_id,
        "role": row.role,
        "created_at": rfc3339(row.at_ms),
        "index": row.index,
    }


def media_type(row: VersionRow) -> str:
    """The content type as it may stand in a header: the entry's author is believed no further."""
    return row.content_type if _MEDIA_TYPE.fullmatch(row.content_type) else DEFAULT_MEDIA_TYPE


def sent_media_type(request: Request) -> str:
    """The content type of a request's body."""
    said = request.headers.get("content-type", "").strip() or DEFAULT_MEDIA_TYPE
    if len(said) > _MEDIA_TYPE_MAX_CHARS or not _MEDIA_TYPE.fullmatch(said):
        raise Refusal(
            Code.INVALID_PAYLOAD, "Content-Type: give a media type such as text/markdown; charset=utf-8"
        )
    return said


def conditions(request: Request, *, create: bool = False) -> Conditions:
    """What If-Match and If-None-Match ask of a write."""
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise Refusal(Code.BAD_REQUEST, "If-None-Match: a write takes only *, which means: create")
        create = True
    if match is None:
        return Conditions(create=create)
    if match.strip() == "*":
        return Conditions(create=create, live=True)
    found = _ETAG.fullmatch(match.strip())
    if found is None:
        raise Refusal(Code.BAD_REQUEST, "If-Match: give * or one ETag as GET /ucxi/v1/get answered it")
    return Conditions(create=create, expect=int(found[1]))


async def read_body(request: Request, role: str) -> bytes:
    """The request's content, no longer than what can be sealed for the role."""
    limit = dht.content_max_bytes(role)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise Refusal(
                Code.PAYLOAD_TOO_LARGE,
                f"content at this address may have {limit} bytes",
                details={"limit": limit},
                headers={"Connection": "close"},
            )
    return bytes(content)


def announced_bytes(request: Request) -> int:
    """How much content a request may bring."""
    said = request.headers.get("content-length", "")
    return min(int(said), dht.VALUE_MAX_BYTES) if said.isdecimal() else dht.VALUE_MAX_BYTES


def entry_id(request: Request) -> str:
    """A new entry's id; the same `Idempotency-Key` gives the same, so that a repeat counts once."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return new_id()
    return encode(hashlib.sha256(b"chorus/v1/ucxi\n" + key.encode("latin-1")).digest()[:16])


async def write(
    context: Context, address: Ucxl, content: bytes, content_type: str, when: Conditions, ident: str
) -> VersionRow:
    """Content becomes the next version at an address."""
    try:
        stored = await dht.store(context.hub, content, address.role)
    except HubRefused as error:
        # The sentinel found a secret, and content is named by its hash: only its author can redact it.
        raise Refusal(Code.UNPROCESSABLE, error.message, details={"address": str(address)}) from None
    except HubInvalid as error:
        raise Refusal(Code.INVALID_ADDRESS, error.message, details={"address": str(address)}) from None
    body = {
        "address": str(address),
        "hash": dht.sha256(content),
        "stored": stored,
        "kind": dht.KIND,
        "size": len(content),
        "content_type": content_type,
    }
    return await _propose(context, body, when, ident)


async def delete(context: Context, address: Ucxl, when: Conditions, ident: str) -> VersionRow:
    """A tombstone becomes the next version at an address."""
    return await _propose(context, {"address": str(address), "tombstone": True}, when, ident)


async def _propose(context: Context, body: dict[str, Any], when: Conditions, ident: str) -> VersionRow:
    body |= {"create": when.create, "live": when.live, "expect": when.expect}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEADER_WAIT_S
    while True:
        left = max(REPEAT_PAUSE_S, deadline - loop.time())
        try:
            reply = await context.hub.call_service(
                "coordinator", "table.propose", {"type": "version", "id": ident}, orjson.dumps(body), left
            )
            break
        except (HubUnavailable, HubClosed) as error:
            if loop.time() >= deadline or context.stopping.is_set():
                raise _no_leader(error) from None
        except HubInvalid as error:
            # A name in the entry holds a secret; the message says which.
            raise Refusal(Code.UNPROCESSABLE, error.message) from None
        except HubError as error:
            if error.code in ("timeout", "no_leader", "not_leader", "no_mesh"):
                raise _no_leader(error) from None
            raise
        await asyncio.sleep(REPEAT_PAUSE_S)
    if not reply.head["accepted"]:
        raise _refused(str(reply.head["reason"]), str(body["address"]))
    row = context.table.ucxl.written_by(ident)
    if row is None or (row.address, row.hash) != (body["address"], body.get("hash", "")):
        raise Refusal(
            Code.CONFLICT,
            "this Idempotency-Key was used for another write",
            details={"address": body["address"]},
        )
    return row


def _no_leader(error: HubError) -> Refusal:
    return Refusal(
        Code.SERVICE_UNAVAILABLE,
        "the mesh could not decide in time, as it cannot without a leader; reading goes on. Whether this was"
        " written shows in the history of the address; repeated with an Idempotency-Key it counts once",
        cause=f"{error.code}: {error.message}",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


_REFUSALS: Final = {
    rules.EXISTS: Code.CONFLICT,
    rules.CONFLICT: Code.CONFLICT,
    rules.MISSING: Code.NOT_FOUND,
    rules.BAD_ADDRESS: Code.INVALID_ADDRESS,
}


def _refused(reason: str, address: str) -> Refusal:
    kind, _, rest = reason.partition(": ")
    code = _REFUSALS.get(kind)
    if code is None:
        # About this agent's standing in its mesh, not about the request.
        return Refusal(
            Code.SERVICE_UNAVAILABLE,
            f"the mesh did not take it: {reason}",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    return Refusal(code, rest, details={"address": address})

"""The form of a decision record, and its verification without any network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from chorus.decisions.encoding import DecisionError, canonical, check_signature

SCHEMA = "chorus/decision/v1"
Kind = Literal["task_result", "hmmm_outcome", "vote"]
KINDS: tuple[Kind, ...] = ("task_result", "hmmm_outcome", "vote")
# A record is made to be read; what is large lies elsewhere, by hash.
RECORD_BYTES_MAX = 1024 * 1024

_COMPONENT = re.compile(r"[^A-Za-z0-9_-]+")
_REQUIRED: dict[str, type] = {
    "schema": str, "address": str, "kind": str, "agent": dict, "role": str, "decided": dict, "summary": str,
    "inputs": dict, "commands": list, "artifacts": list, "usage": dict, "links": dict, "created_at": str,
    "sig": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record whose form and signature fit."""

    hash: str
    author: str
    record: dict[str, Any]


def address(agent_id: str, role: str, project: str, task_id: str, attempt: int) -> str:
    """Where a task's record stands in UCXL, the address scheme of CHORUS."""
    agent, part, folder = (_component(value) for value in (agent_id, role or "agent", project or "chorus"))
    return f"ucxl://{agent}:{part}@{folder}:{task_id}/*^/{attempt}/decision.json"


def build(
    *,
    kind: Kind,
    peer: str,
    agent_id: str,
    role: str,
    project: str,
    task_id: str,
    attempt: int,
    mesh: str,
    title: str,
    decided: Mapping[str, Any],
    summary: str,
    inputs: Mapping[str, Any],
    commands: Sequence[Mapping[str, Any]],
    artifacts: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any],
    created_at: str,
    influenced_by: Sequence[str] = (),
    derived_from: Sequence[str] = (),
    supersedes: Sequence[str] = (),
) -> dict[str, Any]:
    """A record without its signature."""
    return {
        "schema": SCHEMA,
        "address": address(agent_id, role, project, task_id, attempt),
        "kind": kind,
        "mesh": mesh,
        "task_id": task_id,
        "attempt": attempt,
        "title": title,
        "agent": {"peer": peer, "agent_id": agent_id},
        "role": role,
        "decided": dict(decided),
        "summary": summary,
        "inputs": dict(inputs),
        "commands": [dict(command) for command in commands],
        "artifacts": [dict(artifact) for artifact in artifacts],
        "usage": dict(usage),
        "links": {
            "influenced_by": list(influenced_by),
            "derived_from": list(derived_from),
            "supersedes": list(supersedes),
        },
        "created_at": created_at,
    }


def encode(record: Mapping[str, Any]) -> bytes:
    """The record's bytes, RFC 8785. Their SHA-256 is its name."""
    return canonical(dict(record))


def hash_of(encoded: bytes) -> str:
    """The name of a record."""
    return hashlib.sha256(encoded).hexdigest()


async def sign(record: Mapping[str, Any], signer: Callable[[bytes], Awaitable[str]]) -> bytes:
    """The encoded record with `sig`: the base64 signature over the record's bytes without it."""
    unsigned = {name: value for name, value in record.items() if name != "sig"}
    return encode({**unsigned, "sig": await signer(encode(unsigned))})


def verify(encoded: bytes, *, expected_hash: str | None = None) -> VerifiedRecord:
    """Checks form, encoding, hash and signature, offline.

    Raises DecisionError naming the first thing wrong.
    """
    if len(encoded) > RECORD_BYTES_MAX:
        raise DecisionError(f"larger than {RECORD_BYTES_MAX} bytes")
    name = hash_of(encoded)
    if expected_hash is not None and name != expected_hash:
        raise DecisionError(f"the bytes hash to {name}, not to {expected_hash}")
    try:
        record = orjson.loads(encoded)
    except orjson.JSONDecodeError as error:
        raise DecisionError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DecisionError("not a JSON object")
    for field, kind in _REQUIRED.items():
        if not isinstance(record.get(field), kind):
            raise DecisionError(f"field {field} is missing or of the wrong kind")
    if record["schema"] != SCHEMA:
        raise DecisionError(f"schema {record['schema']!r} is not known here")
    if record["kind"] not in KINDS:
        raise DecisionError(f"kind {record['kind']!r} is not known here")
    peer = record["agent"].get("peer")
    if not isinstance(peer, str) or not peer:
        raise DecisionError("field agent.peer is missing")
    if encode(record) != encoded:
        raise DecisionError("not in the canonical encoding")
    check_signature(encoded, peer)
    return VerifiedRecord(name, peer, record)


def _component(text: str) -> str:
    """A part of an address: anything it must not hold becomes a dash."""
    return _COMPONENT.sub("-", text).strip("-") or "any"

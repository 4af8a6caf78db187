"""A decision record as it is made: its fields put together, its encoding, name, address and signature."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from chorus.decisions.encoding import canonical
from chorus.decisions.schema import SCHEMA, Kind

# The last part of a record's address: records of different kinds about one attempt lie side by side.
FILES: Final[dict[Kind, str]] = {
    "task_result": "decision.json",
    "hmmm_outcome": "discussion.json",
    "vote": "vote.json",
}
# What a result says beside the rest of its goal, and a record among its inputs.
_OF_INPUTS: Final = frozenset({"model", "prompts_sha256"})
_COMPONENT = re.compile(r"[^A-Za-z0-9_-]+")


def address(
    agent_id: str, role: str, project: str, task_id: str, attempt: int, kind: Kind = "task_result"
) -> str:
    """Where a record stands in UCXL, the address scheme of CHORUS."""
    agent, part, folder = (component(value) for value in (agent_id, role or "agent", project or "chorus"))
    return f"ucxl://{agent}:{part}@{folder}:{task_id}/*^/{attempt}/{FILES[kind]}"


def component(text: str) -> str:
    """A part of an address: anything it must not hold becomes a dash."""
    return _COMPONENT.sub("-", text).strip("-") or "any"


def inputs(**known: Any) -> dict[str, Any]:
    """The inputs of a record, with nothing where nothing is known."""
    nothing: dict[str, Any] = {
        "source_kind": "", "source_sha256": "", "image": "", "image_digest": "", "prompts_sha256": "",
        "model": None, "context": [],
    }  # fmt: skip
    return {**nothing, **known}


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
    created_at: str,
    commands: Sequence[Mapping[str, Any]] = (),
    artifacts: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
    influenced_by: Sequence[str] = (),
    derived_from: Sequence[str] = (),
    supersedes: Sequence[str] = (),
    goal: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A record without its signature; `goal` is what a result says of a goal (`table.entries.GoalReport`)."""
    return {
        "schema": SCHEMA,
        "address": address(agent_id, role, project, task_id, attempt, kind),
        "kind": kind,
        "mesh": mesh,
        "project": project,
        "task_id": task_id,
        "attempt": attempt,
        "title": title,
        "agent": {"peer": peer, "agent_id": agent_id},
        "role": role,
        "decided": dict(decided),
        "summary": summary,
        "inputs": {**inputs, **{name: said for name, said in (goal or {}).items() if name in _OF_INPUTS}},
        "commands": [dict(command) for command in commands],
        "artifacts": [dict(artifact) for artifact in artifacts],
        "usage": dict(usage or {}),
        "links": {
            "influenced_by": list(influenced_by),
            "derived_from": list(derived_from),
            "supersedes": list(supersedes),
        },
        "created_at": created_at,
        **({} if goal is None else {"goal": {n: said for n, said in goal.items() if n not in _OF_INPUTS}}),
    }


def addressed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the address that its fields make: they may have changed, as by redaction."""
    made = address(
        record["agent"]["agent_id"], record["role"], record["project"], record["task_id"], record["attempt"],
        record["kind"],
    )  # fmt: skip
    return {**record, "address": made}


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

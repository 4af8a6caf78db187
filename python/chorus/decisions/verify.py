"""Whether a record is what its author signed, and the one that the mesh lists. Needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from chorus.decisions.encoding import DecisionError, check_signature
from chorus.decisions.record import addressed, encode, hash_of
from chorus.decisions.schema import FORM, SCHEMA

# A record is made to be read; what is large lies elsewhere, by hash.
RECORD_BYTES_MAX = 1024 * 1024


class Listed(Protocol):
    """What the mesh's table says of a record (`chorus.table.rows.DecisionRow`)."""

    @property
    def hash(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def task_id(self) -> str | None: ...
    @property
    def attempt(self) -> int | None: ...
    @property
    def author(self) -> str: ...


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record whose form, address and signature fit. `author` is a peer id."""

    hash: str
    author: str
    record: dict[str, Any]


def verify(
    encoded: bytes,
    *,
    expected_hash: str | None = None,
    author: str | None = None,
    listed: Listed | None = None,
) -> VerifiedRecord:
    """Checks hash, encoding, form, address and signature, and what else is known of the record.

    Raises DecisionError naming the first thing wrong.
    """
    if len(encoded) > RECORD_BYTES_MAX:
        raise DecisionError(f"larger than {RECORD_BYTES_MAX} bytes", "too_large")
    name = hash_of(encoded)
    for expected in (expected_hash, listed.hash if listed is not None else None):
        if expected is not None and name != expected:
            raise DecisionError(f"the bytes hash to {name}, not to {expected}", "altered")
    record = _read(encoded)
    if encode(record) != encoded:
        raise DecisionError("not in the canonical encoding", "not_canonical")
    _check_form(record)
    if (made := addressed(record)["address"]) != record["address"]:
        raise DecisionError(f"it stands at {record['address']}, its content at {made}", "wrong_address")
    signer: str = record["agent"]["peer"]
    check_signature(encoded, signer)
    if author is not None and signer != author:
        raise DecisionError(f"{signer} signed it, not {author}", "wrong_key")
    if listed is not None:
        _check_listed(record, listed)
    return VerifiedRecord(name, signer, record)


def check_role(record: VerifiedRecord, sealed_for: str | None) -> None:
    """Raises DecisionError unless the record was found sealed for the role it speaks to."""
    if (said := record.record["role"]) != (sealed_for or ""):
        raise DecisionError(
            f"it was sealed for {sealed_for or 'every member'}, and says {said or 'every member'}",
            "wrong_role",
        )


def _read(encoded: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(encoded)
    except orjson.JSONDecodeError as error:
        raise DecisionError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DecisionError("not a JSON object")
    return record


def _check_form(record: dict[str, Any]) -> None:
    if record.get("schema") != SCHEMA:
        raise DecisionError(f"schema {str(record.get('schema'))[:64]!r} is not known here", "unknown_schema")
    try:
        FORM.validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # The first part of a place is the kind that the record was read as.
        place = ".".join(str(part) for part in first["loc"][1:]) or "kind"
        raise DecisionError(f"field {place[:200]}: {first['msg']}") from None


def _check_listed(record: dict[str, Any], listed: Listed) -> None:
    author = record["agent"]["peer"]
    if author != listed.author:
        raise DecisionError(f"{author} signed it, the mesh lists {listed.author} as its author", "wrong_key")
    for field in ("kind", "task_id", "attempt"):
        if record[field] != getattr(listed, field):
            raise DecisionError(
                f"it is about {field} {record[field]}, and listed for {getattr(listed, field)}", "replayed"
            )
    if record["address"] != listed.address:
        raise DecisionError(
            f"it stands at {record['address']}, and is listed at {listed.address}", "wrong_address"
        )

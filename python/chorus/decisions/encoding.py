"""RFC 8785 bytes and signatures over them, by the core. JSON crosses the boundary as bytes."""

from __future__ import annotations

from typing import Any, Literal

import orjson

# Why a record is not believed, for programs; the reason says it in words.
Refusal = Literal[
    "too_large",
    "malformed",  # not JSON, or not of the published form
    "unknown_schema",
    "not_canonical",
    "altered",  # the bytes are not those of the hash that names them
    "bad_signature",  # altered after it was signed, or signed with another key than it names
    "wrong_key",  # well signed, by somebody else than expected
    "wrong_role",  # sealed for others than those it speaks to
    "wrong_address",  # not at the address that its content makes
    "replayed",  # listed for another task, attempt or kind than its own
]


class DecisionError(Exception):
    """A record that cannot be believed; `reason` says why, `name` which check it failed."""

    def __init__(self, reason: str, name: Refusal = "malformed") -> None:
        super().__init__(reason)
        self.reason = reason
        self.name: Refusal = name


def canonical(value: dict[str, Any]) -> bytes:
    """The one encoding of a JSON object. Raises DecisionError when it has none."""
    from chorus.core import CoreError, canonical_json

    try:
        encoded: bytes = canonical_json(orjson.dumps(value))
    except (CoreError, orjson.JSONEncodeError) as error:
        raise DecisionError(f"it has no canonical encoding: {error}", "not_canonical") from error
    return encoded


def check_signature(record: bytes, peer: str) -> None:
    """Raises DecisionError unless `peer` signed the object, its `sig` left out."""
    from chorus.core import CoreError, verify_json

    try:
        verify_json(record, peer)
    except CoreError as error:
        raise DecisionError(
            f"the signature is not {peer}'s over these bytes: {error}", "bad_signature"
        ) from error

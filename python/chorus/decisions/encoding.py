"""RFC 8785 bytes and signatures over them, by the core. JSON crosses the boundary as bytes."""

from __future__ import annotations

from typing import Any

import orjson


class DecisionError(Exception):
    """A record that cannot be believed; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def canonical(value: dict[str, Any]) -> bytes:
    """The one encoding of a JSON object."""
    from chorus.core import canonical_json

    encoded: bytes = canonical_json(orjson.dumps(value))
    return encoded


def check_signature(record: bytes, peer: str) -> None:
    """Raises DecisionError unless `peer` signed the object, its `sig` left out."""
    from chorus.core import verify_json

    try:
        verify_json(record, peer)
    except Exception as error:  # the core has a class for each way a signature can be wrong
        raise DecisionError(f"the signature does not fit: {error}") from error

"""Identifiers of tasks and entries: ULIDs, and the id of a task that was heard by gossip without one."""

from __future__ import annotations

import hashlib
import os
import re
import time

# Crockford's base 32, the alphabet of ULIDs: it sorts like the number it stands for.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ID_LENGTH = 26
ID_PATTERN = r"^[0-9A-Z]{26}$"

_ID = re.compile(ID_PATTERN)
_BYTES = 16
_CHUNK_BITS = 10
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]


def encode(value: bytes) -> str:
    """Writes 16 bytes as 26 characters, most significant first."""
    if len(value) != _BYTES:
        raise ValueError(f"an id is made of {_BYTES} bytes, not {len(value)}")
    number = int.from_bytes(value, "big")
    # Two characters at a time: ids are made for every entry, and this halves the work.
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -_CHUNK_BITS)])


def new_id(now_ms: int | None = None, randomness: bytes | None = None) -> str:
    """A ULID: 48 bits of milliseconds, then 80 random bits."""
    stamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    tail = os.urandom(10) if randomness is None else randomness
    return encode(stamp.to_bytes(6, "big") + tail)


def heard_task_id(signer: str, sequence: int) -> str:
    """The id of a task announced without one: every agent that hears the announcement makes the same."""
    digest = hashlib.sha256(f"chorus/v1/task\n{signer}\n{sequence}".encode()).digest()
    return encode(digest[:_BYTES])


def is_id(text: object) -> bool:
    """Whether `text` has the form of an id."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None

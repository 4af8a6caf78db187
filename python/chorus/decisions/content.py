"""Content at UCXL addresses in the DHT: sealed to the role that its address names, under its hash.

One value can be sealed to one circle of readers only, and the same words may be written at addresses of
several roles. So what is for a role in particular is stored behind a line that names the role, under the hash
of both; what is for every member is stored as it is.
"""

from __future__ import annotations

import hashlib
from typing import Final

from chorus.hub import Hub, HubTampered
from chorus.table.rows import VersionRow

KIND: Final = "content"
# What the DHT takes as one value.
VALUE_MAX_BYTES: Final = 16 * 1024 * 1024
# UCXL's words for no role in particular, and the role that all members hold.
UNNAMED_ROLES: Final = frozenset({"", "agent", "any", "member"})


def sealed_to(role: str) -> str | None:
    """The role that content at an address with this role is sealed to; None: every member."""
    return None if role in UNNAMED_ROLES else role


def content_max_bytes(role: str) -> int:
    """How long content at an address with this role may be."""
    return VALUE_MAX_BYTES - len(_line(role))


def sha256(content: bytes) -> str:
    """The hash by which content is known."""
    return hashlib.sha256(content).hexdigest()


async def store(hub: Hub, content: bytes, role: str) -> str:
    """Seals content into the DHT and returns the name it has there. Raises HubError."""
    value = _line(role) + content
    name = sha256(value)
    await hub.dht_put(KIND, name, value, role=sealed_to(role))
    return name


async def fetch(hub: Hub, row: VersionRow) -> bytes:
    """The plain content of a version, which is no tombstone. Raises HubError."""
    value = (await hub.dht_get(row.kind, row.stored, hints=[row.author])).payload
    # The DHT has checked that this is the value named; whether it is what the entry says is for us to check.
    content = value if row.stored == row.hash else value.partition(b"\n")[2]
    if sha256(content) != row.hash:
        raise HubTampered(f"what {row.author} stored for {row.address} is not what it announced")
    return content


def _line(role: str) -> bytes:
    named = sealed_to(role)
    return b"" if named is None else f"chorus/ucxl/v1 {named}\n".encode()

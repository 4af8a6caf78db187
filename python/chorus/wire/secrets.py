"""A task's secrets on their way: sealed to the members of the cluster wherever they are stored or sent.

A submitter may send them sealed already; a plain value is sealed by the agent that takes the task in.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Protocol

# Then base64 of an age file, sealed to the role `member`.
SEALED_PREFIX = "sealed:"


class Sealer(Protocol):
    """What the hub's client offers."""

    async def seal(self, data: bytes, *, role: str | None = None) -> bytes:
        """Seals to a role; None: to every member."""
        ...

    async def open_sealed(self, sealed: bytes) -> bytes:
        """Opens what was sealed to a role this agent holds."""
        ...


async def seal_secrets(sealer: Sealer, secrets: Mapping[str, str]) -> dict[str, str]:
    """The secrets, each sealed; those that are sealed already stay as they are. Raises HubError."""
    return {
        name: value if value.startswith(SEALED_PREFIX) else await _seal(sealer, value)
        for name, value in secrets.items()
    }


async def open_secrets(sealer: Sealer, secrets: Mapping[str, str]) -> dict[str, str]:
    """The plain values. Raises ValueError naming the secret that cannot be read, HubError."""
    opened = {}
    for name, value in secrets.items():
        try:
            sealed = base64.b64decode(value.removeprefix(SEALED_PREFIX), validate=True)
            opened[name] = (await sealer.open_sealed(sealed)).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"secret {name} is not {SEALED_PREFIX} and base64 of an age file") from None
    return opened


async def _seal(sealer: Sealer, value: str) -> str:
    return SEALED_PREFIX + base64.b64encode(await sealer.seal(value.encode())).decode()

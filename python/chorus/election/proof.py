"""Proofs that a peer holds the cluster secret, sent between members and agents that join, or are members no
more.

The network key lets a peer connect; it does not make these proofs. Each one is an HMAC-SHA256 over a JSON
array that names the purpose, the mesh, both peers and the fresh random values of both, so that it proves
nothing to anybody else and nothing a second time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from chorus.hub import HubInvalid

# A nonce or challenge: too long to guess or to meet twice.
RANDOM_BYTES: Final = 32
_PROOF_BYTES: Final = hashlib.sha256().digest_size
_DOMAIN: Final = "chorus/v1/join"


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the two sides of one conversation agree on. Random values are in base64, `mesh` is "" for none."""

    mesh: str
    member: str
    joiner: str
    nonce: str
    challenge: str = ""

    def of_holder(self, key: bytes) -> str:
        """The member shows that it holds the secret before anything is believed of what it says."""
        return self._mac(key, "holder")

    def of_joiner(self, key: bytes, agent_id: str) -> str:
        """The joining agent answers the leader's challenge."""
        return self._mac(key, "joiner", agent_id)

    def of_leader(self, key: bytes, raft_id: int, founding: str, members: Sequence[tuple[int, str]]) -> str:
        """The leader vouches for what the joining agent is about to adopt."""
        digest = hashlib.sha256(founding.encode()).hexdigest()
        return self._mac(key, "leader", raft_id, digest, [list(member) for member in members])

    def of_refusal(self, key: bytes) -> str:
        """The leader vouches that the joining identity is a member already and has lost its votes."""
        return self._mac(key, "lost")

    def of_standing(self, key: bytes, raft_id: int, removed: bool) -> str:
        """The member vouches for whether its mesh has removed the asking agent, known by that raft id."""
        return self._mac(key, "standing", raft_id, removed)

    def _mac(self, key: bytes, purpose: str, *said: object) -> str:
        about = [_DOMAIN, purpose, self.mesh, self.member, self.joiner, self.nonce, self.challenge, *said]
        return base64.b64encode(hmac.digest(key, orjson.dumps(about), "sha256")).decode()


def fresh() -> str:
    """A new random value."""
    return base64.b64encode(os.urandom(RANDOM_BYTES)).decode()


def random_value(value: object, name: str) -> str:
    """The random value of a peer, in the one form it has; raises HubInvalid naming the field."""
    return _base64(value, name, RANDOM_BYTES)


def same(given: object, expected: str) -> bool:
    """Whether a proof is the expected one, in constant time. What is no proof at all is not."""
    try:
        proof = _base64(given, "proof", _PROOF_BYTES)
    except HubInvalid:
        return False
    return hmac.compare_digest(proof.encode(), expected.encode())


def _base64(value: object, name: str, size: int) -> str:
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size or base64.b64encode(raw).decode() != value:
        raise HubInvalid(f"{name}: give {size} bytes in base64")
    return str(value)

"""Tokens as KACHING signs them, and keys to sign them with."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chorus.license.keys import PinnedKey

PEER_ID = "12D3KooWGzBRs9LvWwmTeXv3fWEWJm4nJ3Yz6oSfLFZYhxCnFV1x"
SECRET = b"a cluster secret of 32 bytes ..."
NOW = 1_800_000_000.0


def pinned(key: Ed25519PrivateKey, kid: str = "") -> PinnedKey:
    return PinnedKey(kid, key.public_key().public_bytes_raw())


def claims(now: float = NOW, **changed: Any) -> dict[str, Any]:
    """The claims of a good token; a change to None leaves one out."""
    said = {
        "sub": "prod-1",
        "aud": "chorus-agent",
        "cluster_id": "c1",
        "cluster_secret_sha256": hashlib.sha256(SECRET).hexdigest(),
        "peer_id": PEER_ID,
        "permissions": ["agent:run"],
        "exp": int(now) + 600,
        "nbf": int(now),
        "max_agents": 3,
        "lease_id": "lease-1",
        "lease_ttl_s": 30,
        "nonce": "n1",
        **changed,
    }
    return {name: value for name, value in said.items() if value is not None}


def token(key: Any, kid: str | None = None, algorithm: str = "EdDSA", **changed: Any) -> str:
    head = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers=head)


def fresh(key: Any, **changed: Any) -> str:
    """A token that is valid by this machine's clock."""
    return token(key, now=time.time(), **changed)

"""What the reference server sends: tokens, refusals as problem details, and lies. Pure."""

from __future__ import annotations

from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chorus.dev.kaching.faults import Fault, Garbage
from chorus.dev.kaching.ledger import License, SigningKey
from chorus.license.refusals import Denied, Reason
from chorus.license.token import ALGORITHM

_STATUS: Final = {
    Reason.UNKNOWN: 404,
    Reason.UNKNOWN_LEASE: 404,
    Reason.SEATS_USED_UP: 409,
    Reason.REPLAYED_NONCE: 409,
    Reason.BAD_SIGNATURE: 401,
}
# Deeper than any reader of JSON follows.
_DEEP: Final = 100_000


def granted(claims: dict[str, Any], license: License, key: SigningKey, fault: Fault) -> bytes:
    """The answer to `validate` and `renew`; a lying server changes what it says."""
    said: dict[str, Any] = {"token": _token(claims, key, fault)}
    if license.gives_secret:
        said["cluster_secret"] = license.cluster_secret
    if fault.lies and fault.secret is not None:
        said["cluster_secret"] = fault.secret
    return orjson.dumps(said)


def refused(why: Denied) -> tuple[int, bytes]:
    """Status and body of a no."""
    status = _STATUS.get(why.reason, 403)
    body = {"type": "about:blank", "title": "Licence refused", "status": status}
    return status, orjson.dumps({**body, "code": why.reason.value, "detail": str(why)})


def problem(status: int, detail: str) -> bytes:
    """The body of any other refusal."""
    return orjson.dumps({"type": "about:blank", "status": status, "detail": detail})


def garbage(kind: Garbage) -> bytes:
    """An answer that no client can use; `endless` and `cut` are about how it is sent."""
    match kind:
        case "no_token":
            return b'{"ok": true}'
        case "deep":
            return b"[" * _DEEP
    return b"<html>It works!</html>"


def _token(claims: dict[str, Any], key: SigningKey, fault: Fault) -> str:
    if not fault.lies:
        return jwt.encode(claims, key.key, algorithm=ALGORITHM, headers={"kid": key.kid})
    said = {name: value for name, value in {**claims, **fault.claims}.items() if value is not None}
    signer: Any = Ed25519PrivateKey.generate() if fault.other_key else key.key
    match fault.algorithm:
        case "none":
            signer = None
        case "HS256":
            signer = "a secret that everybody knows, of 32 bytes"
        case "ES256":
            signer = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(said, signer, algorithm=fault.algorithm, headers={"kid": key.kid})

"""The pinned public keys of KACHING, the licence server: the forms in which an operator may write them. Pure.

Several are pinned while the server changes its key; a token names its key by `kid`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

KEY_BYTES: Final = 32
# More are pinned by mistake.
KEYS_MAX: Final = 16
# Before the key itself in its DER form (RFC 8410).
_DER_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_PEM: Final = re.compile(
    r"(?:([\w.-]{1,64})[=:]\s*)?-----BEGIN PUBLIC KEY-----([\w+/=\s]*?)-----END PUBLIC KEY-----[\s,]*"
)
_NAMED: Final = re.compile(r"(?:([\w.-]{1,64})[=:])?([\w+/-]+=*)")


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """An Ed25519 public key; `kid` is "" for one that was given no name."""

    kid: str
    raw: bytes


def read_keys(text: str) -> tuple[PinnedKey, ...]:
    """The keys in a text: PEM, a JWK or a set of them, or a list of `KID=KEY` or `KEY`, each in base64 or
    hexadecimal. Raises ValueError when there are none, one is no Ed25519 key, or two share a name.
    """
    text = text.strip()
    if text.startswith("{"):
        keys = tuple(_of_jwks(text))
    elif "-----BEGIN" in text:
        keys = tuple(_of_pem(text))
    else:
        keys = tuple(_named(item) for item in re.split(r"[,\s]+", text) if item)
    names = [key.kid for key in keys if key.kid]
    if not 0 < len(keys) <= KEYS_MAX or len(set(names)) != len(names):
        raise ValueError("no keys, too many, or two of one name")
    return keys


def write_keys(keys: tuple[PinnedKey, ...]) -> str:
    """The same keys in one line that `read_keys` reads."""
    return ",".join(f"{key.kid}={key.raw.hex()}" if key.kid else key.raw.hex() for key in keys)


def normal(text: str) -> str:
    """Any of the forms as one line. Raises ValueError as `read_keys` does."""
    return write_keys(read_keys(text))


def _of_jwks(text: str) -> Iterator[PinnedKey]:
    said: Any = json.loads(text)
    for key in said["keys"] if isinstance(said.get("keys"), list) else [said]:
        if not isinstance(key, dict) or (key.get("kty"), key.get("crv")) != ("OKP", "Ed25519"):
            raise ValueError("not an Ed25519 key")
        yield PinnedKey(str(key.get("kid") or ""), _raw(str(key.get("x"))))


def _of_pem(text: str) -> Iterator[PinnedKey]:
    at = 0
    while at < len(text):
        match = _PEM.match(text, at)
        if match is None:
            raise ValueError("not a PEM public key")
        at = match.end()
        yield PinnedKey(match[1] or "", _raw("".join(match[2].split())))


def _named(item: str) -> PinnedKey:
    match = _NAMED.fullmatch(item)
    if match is None:
        raise ValueError("not a key")
    return PinnedKey(match[1] or "", _raw(match[2]))


def _raw(text: str) -> bytes:
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(raw) == len(_DER_HEAD) + KEY_BYTES:
        raw = raw.removeprefix(_DER_HEAD)
    if len(raw) != KEY_BYTES:
        raise ValueError("not an Ed25519 key")
    return raw

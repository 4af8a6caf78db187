"""Tokens of KACHING, the licence server: a JWT signed with Ed25519 (EdDSA), of which every claim is checked.

`now` is an argument; nothing is read or asked. The library is loaded at the first token: an agent with a
development licence never needs it, and it takes about nine megabytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from chorus.license.keys import PinnedKey
from chorus.license.refusals import Reason, denied, no_answer
from chorus.wire.schema import Schema

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "chorus-agent"
# The permission that an agent needs.
PERMISSION: Final = "agent:run"
# How far the clocks of server and agent may differ.
LEEWAY_S: Final = 60.0
# Several times what a token takes.
TOKEN_MAX_BYTES: Final = 16 * 1024
# A lease is renewed at a third: shorter ones would be all renewals, longer ones never notice a suspension.
LEASE_MIN_S: Final = 0.5
LEASE_MAX_S: Final = 366 * 86_400.0


def _words(value: Any) -> Any:
    """A list, or a text of words."""
    return value.split() if isinstance(value, str) else value


def _moment(value: float) -> float:
    if not 0 <= value <= 2**53:
        raise ValueError("not a time")
    return value


_Text = Annotated[str, Field(min_length=1, max_length=512)]
_Words = Annotated[tuple[_Text, ...], BeforeValidator(_words), Field(max_length=64, strict=False)]
_Moment = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_moment)]


class Claims(Schema):
    """What a token says. Times are seconds since the epoch. Claims that are not known are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    sub: _Text
    aud: _Words
    cluster_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
    cluster_secret_sha256: Annotated[str, Field(min_length=32, max_length=128)]
    peer_id: _Text
    permissions: _Words
    exp: _Moment
    nbf: _Moment
    max_agents: Annotated[int, Field(ge=1, le=2**31)]
    lease_id: _Text
    lease_ttl_s: Annotated[float, Field(ge=LEASE_MIN_S, le=LEASE_MAX_S, allow_inf_nan=False)]
    nonce: _Text

    @property
    def limits(self) -> dict[str, Any]:
        """What the licence allows; the next token may say otherwise."""
        return self.model_dump(mode="json", include={"max_agents", "lease_ttl_s", "permissions"})


def read_token(token: str, keys: Sequence[PinnedKey]) -> Claims:
    """The claims of a token that a pinned key has signed. Raises `NoAnswer` for any other."""
    if len(token) > TOKEN_MAX_BYTES:
        raise no_answer(Reason.MALFORMED_TOKEN, f"it is longer than {TOKEN_MAX_BYTES} bytes")
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise no_answer(Reason.MALFORMED_TOKEN) from None
    if head.get("alg") != ALGORITHM:
        raise no_answer(Reason.WRONG_ALGORITHM, f"but with {str(head.get('alg'))[:32]!r}")
    said: Any = None
    for key in _keys_for(head.get("kid"), keys):
        public = Ed25519PublicKey.from_public_bytes(key.raw)
        try:
            # The times are checked with the others, against a clock that is an argument.
            said = jwt.decode(token, public, algorithms=[ALGORITHM], options=_SIGNATURE_ALONE)
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise no_answer(Reason.MALFORMED_TOKEN) from None
        break
    else:
        raise no_answer(Reason.BAD_SIGNATURE, "the token's")
    try:
        return Claims.model_validate(said)
    except ValidationError as error:
        names = ", ".join(
            sorted({str(item["loc"][0]) if item["loc"] else "token" for item in error.errors()})
        )
        raise no_answer(Reason.MALFORMED_TOKEN, f"missing or of another form: {names}") from None


_SIGNATURE_ALONE: Final[Any] = {
    "verify_signature": True,
    **dict.fromkeys(
        ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"),
        False,
    ),
}


def _keys_for(kid: object, keys: Sequence[PinnedKey]) -> list[PinnedKey]:
    """The key that a token names; those without a name, where none has that one; all, where it names none."""
    if kid is None:
        return list(keys)
    found = [key for key in keys if key.kid == kid] or [key for key in keys if not key.kid]
    if not found:
        raise no_answer(Reason.UNKNOWN_KEY, f"its kid is {str(kid)[:64]!r}")
    return found


def check_mine(claims: Claims, *, license_id: str, cluster_id: str, peer_id: str, agent_id: str) -> None:
    """That a token is this agent's own. `cluster_id` is "" where none is named.

    Raises `NoAnswer` for a token that is somebody else's, `Denied` for one that does not let it run.
    """
    if claims.peer_id != peer_id:
        raise no_answer(Reason.WRONG_PEER)
    if claims.sub != license_id:
        raise no_answer(Reason.WRONG_LICENCE)
    check_usable(claims, cluster_id, also=(license_id, peer_id, agent_id))


def check_usable(claims: Claims, cluster_id: str, also: Sequence[str] = ()) -> None:
    """That a token lets an agent run in this cluster. Raises `Denied`."""
    # Besides our own name for it: what a server may write that was made from the interface alone.
    meant = {name.casefold() for name in (AUDIENCE, "chorus", claims.cluster_id, *also)}
    if meant.isdisjoint(name.casefold() for name in claims.aud):
        raise denied(Reason.WRONG_AUDIENCE)
    if cluster_id and claims.cluster_id != cluster_id:
        raise denied(Reason.WRONG_CLUSTER)
    if PERMISSION not in claims.permissions:
        raise denied(Reason.PERMISSION_MISSING)


def check_times(claims: Claims, now: float, *, late_s: float = 0.0) -> None:
    """That a token is valid now, or has not ended longer than `late_s` ago. Raises `NoAnswer`: it may be this
    machine's clock that is wrong.
    """
    if now < claims.nbf - LEEWAY_S:
        raise no_answer(Reason.NOT_YET_VALID)
    if now > claims.exp + LEEWAY_S + late_s:
        raise no_answer(Reason.EXPIRED)


def check_nonce(claims: Claims, nonce: str) -> None:
    """That a token answers the question asked. Raises `NoAnswer`."""
    if claims.nonce != nonce:
        raise no_answer(Reason.REPLAYED_NONCE, "the token's nonce is not the one sent")


def secret_of(claims: Claims, setting: bytes, given: str) -> bytes:
    """The cluster secret, from the setting or else as KACHING gave it; b"" when there is neither.

    A secret given is text; where its bytes are written in hexadecimal or base64, the token's hash tells.
    Raises `Denied` for a setting that the token does not name, `NoAnswer` for what KACHING gave.
    """
    if not setting and not given:
        return b""
    named = claims.cluster_secret_sha256
    for secret in [setting] if setting else _readings(given):
        digest = hashlib.sha256(secret).digest()
        plain = base64.b64encode(digest).decode().rstrip("=")
        if named.lower() == digest.hex() or named.rstrip("=").translate(_PLAIN_BASE64) == plain:
            return secret
    if setting:
        raise denied(Reason.WRONG_SECRET, "CHORUS_CLUSTER_SECRET")
    raise no_answer(Reason.WRONG_SECRET, "the one that KACHING gave")


_PLAIN_BASE64: Final = str.maketrans("-_", "+/")


def _readings(given: str) -> list[bytes]:
    readings = [given.encode("utf-8", "surrogateescape")]
    for read in (bytes.fromhex, base64.b64decode, base64.urlsafe_b64decode):
        try:
            readings.append(read(given))
        except (ValueError, binascii.Error):
            continue
    return readings

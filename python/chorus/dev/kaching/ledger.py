"""The reference server's licences and leases, its keys, and what it answers to agents. Time is an argument;
all of it lies in one file, which is written before an answer is given.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from chorus.config.files import write_private
from chorus.core import CoreError, verify_json
from chorus.license.refusals import Reason, denied
from chorus.license.token import AUDIENCE, LEASE_MAX_S, LEASE_MIN_S, PERMISSION

STATE: Final = "state.json"
# Of questions that were answered; a repeated one comes soon or never.
NONCES_KEPT: Final = 1_000
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32


class Malformed(Exception):
    """A question without a field, or with one of another form; names it."""


class License(BaseModel):
    """One licence. Times are seconds since the epoch; `expires` None: never."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]
    cluster_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    # The cluster's secret; given out with the licence unless `gives_secret` is false.
    cluster_secret: str = Field(default_factory=lambda: secrets.token_hex(_SECRET_BYTES), min_length=24)
    gives_secret: bool = True
    permissions: tuple[str, ...] = (PERMISSION,)
    max_agents: Annotated[int, Field(ge=1)] = 10
    lease_ttl_s: Annotated[float, Field(ge=LEASE_MIN_S, le=LEASE_MAX_S)] = 60.0
    not_before: float = 0.0
    expires: float | None = None
    state: str = "active"


class Held(BaseModel):
    """One lease."""

    model_config = ConfigDict(extra="forbid")

    id: str
    license_id: str
    peer_id: str
    agent_id: str
    until: float


class SigningKey(BaseModel):
    """One key, its private half in hexadecimal."""

    model_config = ConfigDict(extra="forbid")

    kid: str
    private: str

    @classmethod
    def new(cls) -> SigningKey:
        """A key that nobody has."""
        return cls(
            kid=f"k-{secrets.token_hex(4)}", private=Ed25519PrivateKey.generate().private_bytes_raw().hex()
        )

    @property
    def key(self) -> Ed25519PrivateKey:
        """The key itself."""
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.private))

    @property
    def pinned(self) -> str:
        """Its public half as CHORUS_KACHING_PUBLIC_KEY takes it."""
        return f"{self.kid}={self.key.public_key().public_bytes_raw().hex()}"


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    licenses: dict[str, License] = {}
    leases: dict[str, Held] = {}
    nonces: list[str] = []
    # The one that signs, and the one that will: agents pin both, and so live through a change.
    keys: list[SigningKey] = Field(default_factory=lambda: [SigningKey.new(), SigningKey.new()])


class Ledger:
    """The state of one server, in a folder of its own. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / STATE
        self._lock = threading.Lock()
        self._state = _State()
        if self._path.exists():
            self._state = _State.model_validate_json(self._path.read_bytes())
        self._save()

    # What agents ask

    def validate(self, body: dict[str, Any], now: float) -> tuple[dict[str, Any], License]:
        """The claims of a new token, and its licence. Raises `Denied` and `Malformed`."""
        names = ("license_id", "cluster_id", "agent_id", "peer_id", "version", "nonce")
        license_id, cluster_id, agent_id, peer_id, _, nonce = _texts(body, names)
        _check_signature(body, peer_id)
        with self._lock:
            found = self._usable(license_id, now)
            if cluster_id and cluster_id != found.cluster_id:
                raise denied(Reason.WRONG_CLUSTER)
            self._use(nonce)
            live = self._live(license_id, now)
            if sum(lease.peer_id != peer_id for lease in live) >= found.max_agents:
                raise denied(Reason.SEATS_USED_UP, f"{found.max_agents} of {found.max_agents}")
            lease = next((lease for lease in live if lease.peer_id == peer_id), None) or Held(
                id=secrets.token_hex(_ID_BYTES),
                license_id=license_id,
                peer_id=peer_id,
                agent_id=agent_id,
                until=0,
            )
            return self._extend(lease, found, nonce, now)

    def renew(self, lease_id: str, body: dict[str, Any], now: float) -> tuple[dict[str, Any], License]:
        """The claims of the next token, and its licence. Raises `Denied` and `Malformed`."""
        nonce, peer_id = _texts(body, ("nonce", "peer_id"))
        _check_signature(body, peer_id)
        with self._lock:
            lease = self._lease_of(lease_id, peer_id, now)
            found = self._usable(lease.license_id, now)
            self._use(nonce)
            return self._extend(lease, found, nonce, now)

    def give_back(self, lease_id: str, body: dict[str, Any], now: float) -> None:
        """Ends a lease. Raises `Denied` and `Malformed`."""
        [peer_id] = _texts(body, ("peer_id",))
        _check_signature(body, peer_id)
        with self._lock:
            self._lease_of(lease_id, peer_id, now)
            del self._state.leases[lease_id]
            self._save()

    # What the operator asks

    def create(self, made: License) -> License:
        """A new licence. Raises `Malformed` for an id that is taken."""
        with self._lock:
            if made.id in self._state.licenses:
                raise Malformed(f"id: there is a licence {made.id} already")
            self._state.licenses[made.id] = made
            self._save()
            return made

    def set_state(self, license_id: str, state: str) -> License:
        """Suspends, resumes or revokes. Raises `Denied` for an unknown licence and a revoked one."""
        with self._lock:
            found = self._known(license_id)
            if found.state == "revoked":
                raise denied(Reason.REVOKED)
            found.state = state
            self._save()
            return found

    def licenses(self) -> list[License]:
        """All licences."""
        with self._lock:
            return list(self._state.licenses.values())

    def leases(self, now: float) -> list[Held]:
        """Those that have not run out."""
        with self._lock:
            return [lease for lease in self._state.leases.values() if lease.until > now]

    def signing_keys(self) -> list[SigningKey]:
        """The key that signs, and the next one."""
        with self._lock:
            return list(self._state.keys)

    def rotate(self) -> list[SigningKey]:
        """Signs with the next key from now on, and makes another next one."""
        with self._lock:
            self._state.keys = [self._state.keys[1], SigningKey.new()]
            self._save()
            return list(self._state.keys)

    # With the lock held

    def _known(self, license_id: str) -> License:
        if (found := self._state.licenses.get(license_id)) is None:
            raise denied(Reason.UNKNOWN)
        return found

    def _usable(self, license_id: str, now: float) -> License:
        found = self._known(license_id)
        if found.state != "active":
            raise denied(Reason(found.state))
        if now < found.not_before:
            raise denied(Reason.NOT_YET_VALID)
        if found.expires is not None and now >= found.expires:
            raise denied(Reason.EXPIRED)
        if PERMISSION not in found.permissions:
            raise denied(Reason.PERMISSION_MISSING)
        return found

    def _live(self, license_id: str, now: float) -> list[Held]:
        leases = self._state.leases.values()
        return [lease for lease in leases if lease.license_id == license_id and lease.until > now]

    def _lease_of(self, lease_id: str, peer_id: str, now: float) -> Held:
        lease = self._state.leases.get(lease_id)
        if lease is None or lease.until <= now:
            raise denied(Reason.UNKNOWN_LEASE)
        if lease.peer_id != peer_id:
            raise denied(Reason.WRONG_PEER)
        return lease

    def _use(self, nonce: str) -> None:
        if nonce in self._state.nonces:
            raise denied(Reason.REPLAYED_NONCE)
        self._state.nonces = [*self._state.nonces, nonce][-NONCES_KEPT:]

    def _extend(self, lease: Held, found: License, nonce: str, now: float) -> tuple[dict[str, Any], License]:
        lease.until = now + found.lease_ttl_s
        self._state.leases = {
            other.id: other for other in (*self._state.leases.values(), lease) if other.until > now
        }
        self._save()
        claims = {
            "sub": found.id,
            "aud": AUDIENCE,
            "cluster_id": found.cluster_id,
            "cluster_secret_sha256": hashlib.sha256(found.cluster_secret.encode()).hexdigest(),
            "peer_id": lease.peer_id,
            "permissions": list(found.permissions),
            "nbf": int(now),
            "exp": int(min(lease.until, found.expires or lease.until)) + 1,
            "max_agents": found.max_agents,
            "lease_id": lease.id,
            "lease_ttl_s": found.lease_ttl_s,
            "nonce": nonce,
        }
        return claims, found

    def _save(self) -> None:
        write_private(self._path, self._state.model_dump_json(indent=1))


def _texts(body: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    wrong = [name for name in (*names, "signature") if not isinstance(body.get(name), str)]
    if wrong:
        raise Malformed(f"{', '.join(wrong)}: expected a text")
    return [body[name] for name in names]


def _check_signature(body: dict[str, Any], peer_id: str) -> None:
    """Over the canonical body (RFC 8785) without it, by the key in the peer id."""
    signed = {name: value for name, value in body.items() if name != "signature"}
    try:
        verify_json(orjson.dumps({**signed, "sig": body["signature"]}), peer_id)
    except CoreError:
        raise denied(Reason.BAD_SIGNATURE, "the question's") from None

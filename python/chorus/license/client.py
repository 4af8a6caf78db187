"""Asks KACHING, the licence server: a lease validated, renewed, given back.

Every question is signed with the agent's identity key over its body in canonical form (RFC 8785). Answers are
bounded in size and time; no redirect is followed, no proxy of the environment used.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import httpcore
import orjson

from chorus.license.refusals import Reason, denied, no_answer, reason_in

# For one question, connecting included.
DEADLINE_S: Final = 10.0
# A stop does not wait longer for a server that is away.
GIVE_BACK_S: Final = 5.0
# A token and a secret take a tenth of this.
ANSWER_MAX_BYTES: Final = 64 * 1024
# Of an answer that says no, in messages.
SHOWN_CHARS: Final = 200
# Try again later, in HTTP's words: nothing is said about the licence.
_LATER: Final = (408, 425, 429)

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What KACHING granted; not verified yet. `secret` is "" when it gave none."""

    token: str
    secret: str = ""


class Kaching:
    """One server. Raises `Denied` for a no, `NoAnswer` when it is away or its answer cannot be read."""

    def __init__(self, url: str, peer_id: str, sign: Sign, *, deadline_s: float = DEADLINE_S) -> None:
        self._url, self._peer_id, self._sign = url.rstrip("/"), peer_id, sign
        self._deadline_s = deadline_s
        self._tls: ssl.SSLContext | None = None

    async def validate(
        self, license_id: str, cluster_id: str, agent_id: str, version: str, nonce: str
    ) -> Answer:
        """Asks for a lease. `cluster_id` is "" where the licence is to name the cluster."""
        body = {
            "license_id": license_id,
            "cluster_id": cluster_id,
            "agent_id": agent_id,
            "peer_id": self._peer_id,
            "version": version,
            "nonce": nonce,
        }
        return _granted(await self._ask("POST", "/api/v1/licenses/validate", body, self._deadline_s))

    async def renew(self, lease_id: str, nonce: str) -> Answer:
        """Asks for more time."""
        path = f"/api/v1/leases/{quote(lease_id, safe='')}/renew"
        body = {"nonce": nonce, "peer_id": self._peer_id}
        return _granted(await self._ask("POST", path, body, self._deadline_s))

    async def give_back(self, lease_id: str) -> None:
        """Ends a lease."""
        path = f"/api/v1/leases/{quote(lease_id, safe='')}"
        await self._ask("DELETE", path, {"peer_id": self._peer_id}, GIVE_BACK_S)

    async def _ask(
        self, method: Literal["POST", "DELETE"], path: str, body: Mapping[str, str], deadline_s: float
    ) -> bytes:
        content = signed_body(body, self._sign)
        parts, url = urlsplit(self._url), self._url + path
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "Accept": "application/json",
            # Compressed answers could be far larger than they look.
            "Accept-Encoding": "identity",
        }
        if self._tls is None and parts.scheme == "https":
            self._tls = tls_context()
        try:
            async with (
                asyncio.timeout(deadline_s),
                httpcore.AsyncConnectionPool(ssl_context=self._tls) as pool,
                pool.stream(method, url, headers=[*headers.items()], content=content) as response,
            ):
                answer = bytearray()
                async for data in response.aiter_stream():
                    answer += data
                    if len(answer) > ANSWER_MAX_BYTES:
                        raise no_answer(Reason.GARBAGE, f"it is longer than {ANSWER_MAX_BYTES} bytes")
                status = response.status
        except TimeoutError:
            raise no_answer(Reason.SLOW, f"not within {deadline_s:g} s") from None
        except (httpcore.ProtocolError, httpcore.ReadError) as error:
            raise no_answer(Reason.GARBAGE, _short(str(error) or "the connection broke off")) from None
        except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
            raise no_answer(Reason.UNREACHABLE, _short(str(error) or type(error).__name__)) from None
        if not 200 <= status < 300:
            _raise_status(status, bytes(answer))
        return bytes(answer)


def signed_body(body: Mapping[str, str], sign: Sign) -> bytes:
    """The body with `signature`: base64 of the Ed25519 signature over the canonical body without it."""
    from chorus.core import canonical_json

    signature = sign(canonical_json(orjson.dumps(body)))
    return orjson.dumps({**body, "signature": base64.b64encode(signature).decode()})


def tls_context() -> ssl.SSLContext:
    """The machine's certificates (SSL_CERT_FILE names others); those of certifi on a machine without any."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _granted(answer: bytes) -> Answer:
    try:
        said: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        raise no_answer(Reason.GARBAGE, "it is not JSON") from None
    token = said.get("token") if isinstance(said, dict) else None
    secret = said.get("cluster_secret") if isinstance(said, dict) else None
    if not isinstance(token, str) or not isinstance(secret, str | None):
        raise no_answer(Reason.GARBAGE, "there is no token in it")
    return Answer(token, secret or "")


def _raise_status(status: int, answer: bytes) -> None:
    """A client error with a reason, or in JSON, is KACHING's no; all else may be a proxy's word."""
    try:
        body: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        body = answer.decode(errors="replace")
    shown = _short(_message(body))
    if 400 <= status < 500 and status not in _LATER:
        reason = reason_in(body)
        if isinstance(body, dict) or reason not in (None, Reason.UNKNOWN):
            if reason is Reason.REPLAYED_NONCE:
                # Whoever repeated the question, the answer to another one is still to come.
                raise no_answer(reason, f"it answered {status}")
            raise denied(reason or Reason.REFUSED, "" if reason else f"it answered {status}: {shown}")
    if 300 <= status < 400:
        raise no_answer(Reason.SERVER_ERROR, f"it answered {status}, a redirect, which is not followed")
    raise no_answer(
        Reason.SERVER_ERROR, f"it answered {status}: {shown}" if shown else f"it answered {status}"
    )


def _message(body: Any) -> str:
    if isinstance(body, dict):
        for name in ("detail", "message", "error", "reason", "title"):
            if isinstance(body.get(name), str):
                return str(body[name])
    return body if isinstance(body, str) else str(body)


def _short(text: str) -> str:
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean[:SHOWN_CHARS].strip()

"""The gate before every route: token, cross-site checks, size and pace of bodies.

It is also where an error that no route expected ends: with its own request, told and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chorus.api.faults import Faults
from chorus.api.head import SHOWN_MAX_CHARS, host_is_address, origin_host, read_head
from chorus.api.problems import Problem, unexpected_problem
from chorus.blobs import BLOB_MAX_BYTES
from chorus.decisions.content import VALUE_MAX_BYTES
from chorus.process import metrics

JSON_MAX_BYTES: Final = 1024 * 1024
# A source becomes a blob, and what no member would fetch must not come in.
SOURCE_MAX_BYTES: Final = BLOB_MAX_BYTES
# A multipart body is a source, a task and the lines between them.
MULTIPART_MAX_BYTES: Final = SOURCE_MAX_BYTES + JSON_MAX_BYTES + 64 * 1024
# Where a multipart body is taken.
SUBMISSION: Final = ("POST", "/api/v1/tasks")
# Where a body is content for the DHT, which takes no more as one value.
CONTENT_PATHS: Final = frozenset({"/ucxi/v1/put", "/ucxi/v1/post"})
# Between two pieces of a body; a client slower than that only holds a connection.
BODY_PAUSE_MAX_S: Final = 20.0
# A body below this pace is cut off too: one byte per pause would last for ever.
BODY_PACE_MIN_BYTES_S: Final = 1024
BODY_GRACE_S: Final = 30.0
# After a refusal in the middle of a body: how long the rest is read and thrown away before the connection
# closes.
LINGER_MAX_S: Final = 30.0
# The status under which an answer is counted that began and could not be finished.
BROKEN_OFF: Final = "aborted"


class Guard:
    """ASGI middleware. `open_paths` need no token; `loopback`: the port is reached by address only."""

    def __init__(
        self, app: ASGIApp, *, token: str | None, open_paths: frozenset[str], loopback: bool
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._open_paths = open_paths
        self._loopback = loopback
        self._faults = Faults()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return
        status = 0
        broken_off = closing = False
        body = _Body(receive)

        async def counted(message: Message) -> None:
            nonlocal status, broken_off, closing
            if message["type"] == "http.response.start":
                status = message["status"]
                broken_off = True
                closing = (b"connection", b"close") in message["headers"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            elif closing and not message.get("more_body", False):
                # Closing on unread bytes resets the connection, and the client may lose the answer.
                await send({**message, "more_body": True})
                await body.linger()
                message = {"type": "http.response.body", "body": b""}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                broken_off = False

        async def answer(problem: Problem) -> None:
            # An answer that has begun is broken off: the server closes the connection.
            if not status:
                await problem.response(scope["path"])(scope, receive, counted)

        try:
            headers = read_head(scope)
            self._check(scope["path"], headers)
            route = (scope["method"], scope["path"])
            body.check_announced(headers, *_limit(route, headers))
            await self._app(scope, body.receive, counted)
        except Problem as problem:
            await answer(problem)
        except Exception as error:
            self._faults.tell(error, f"the answer to a request for {scope['path'][:SHOWN_MAX_CHARS]}")
            await answer(unexpected_problem())
        finally:
            counted_as = BROKEN_OFF if broken_off else str(status)
            metrics.HTTP_REQUESTS.labels(_method(scope["method"]), counted_as).inc()

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self._loopback and not host_is_address(host):
            # A name that resolves to loopback is how a web page reaches programs that listen there.
            raise Problem(403, f"Host {host!r} is not an address of this agent; use 127.0.0.1 or localhost")
        origin = headers.get(b"origin")
        if origin is not None and origin_host(origin) != host.lower():
            raise Problem(
                403, "cross-site requests are refused; send the request without an Origin of another site"
            )
        if headers.get(b"sec-fetch-site", b"none") == b"cross-site":
            raise Problem(403, "cross-site requests are refused")
        if self._token is not None and path not in self._open_paths:
            self._check_token(headers.get(b"authorization", b""))

    def _check_token(self, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        assert self._token is not None
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return
        what = "the token is wrong" if authorization else "a token is required"
        raise Problem(
            401,
            f"{what}: send Authorization: Bearer TOKEN with the content of the file api-token in the agent's "
            "data folder (chorusctl token prints it)",
            headers={"WWW-Authenticate": 'Bearer realm="chorus"'},
        )


class _Body:
    """Hands the body on while it keeps within its limit and its pace."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._limit = 0
        self._hint = ""
        self._seen = 0
        self._complete = False
        self._waited = 0.0
        self._clock: Callable[[], float] = asyncio.get_running_loop().time

    def check_announced(self, headers: dict[bytes, bytes], limit: int, hint: str) -> None:
        """Sets how long the body may be, and refuses by Content-Length alone, before a byte is read."""
        self._limit, self._hint = limit, hint
        announced = int(headers.get(b"content-length", b"0"))
        if announced > limit:
            raise self._too_large()
        self._complete = announced == 0 and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """The next message of the client."""
        if self._complete:
            return await self._receive()
        before = self._clock()
        try:
            async with asyncio.timeout(BODY_PAUSE_MAX_S):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, f"no part of the body came for {BODY_PAUSE_MAX_S:g} s") from None
        if message["type"] != "http.request":
            return message
        self._waited += self._clock() - before
        self._seen += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._seen > self._limit:
            raise self._too_large()
        if self._waited > BODY_GRACE_S + self._seen / BODY_PACE_MIN_BYTES_S:
            raise Problem(408, f"the body comes with less than {BODY_PACE_MIN_BYTES_S} bytes a second")
        return message

    async def linger(self) -> None:
        """Throws away what the client still sends, until its end or for LINGER_MAX_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_MAX_S):
                while not self._complete:
                    message = await self._receive()
                    self._complete = not message.get("more_body", False)

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._limit} bytes{self._hint}", limit=self._limit)


def _limit(route: tuple[str, str], headers: dict[bytes, bytes]) -> tuple[int, str]:
    """How long the body may be, and what to say to whoever sends more. The route decides: much is taken only
    where it is not held in memory.
    """
    method, path = route
    if path in CONTENT_PATHS and method in ("PUT", "POST"):
        return VALUE_MAX_BYTES, ""
    if route != SUBMISSION:
        return JSON_MAX_BYTES, ""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"multipart/form-data":
        return MULTIPART_MAX_BYTES, ""
    return JSON_MAX_BYTES, "; send larger sources as multipart part source"


def _method(method: str) -> str:
    # A label per word a client invents would grow without bound.
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS") else "other"

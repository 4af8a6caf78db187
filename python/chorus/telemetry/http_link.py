"""BACKBEAT over HTTP: the pulse as server-sent events, claims and operations as POST requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore

from chorus.telemetry.link import BodyRefused, LinkFailed, Listener
from chorus.telemetry.outgoing import Kind
from chorus.telemetry.sse import Events

BEATS: Final = "/api/v1/beats"
PATHS: Final[dict[Kind, str]] = {"status": "/api/v1/status", "operation": "/api/v1/operations"}
CONNECT_S: Final = 10.0
# From the request to the head of the answer; of a POST to its end.
ANSWER_S: Final = 10.0
ANSWER_MAX_BYTES: Final = 64 * 1024
_BROKEN: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)
_LATER: Final = frozenset({408, 425, 429})


class HttpLink:
    """The way to one server by its base URL."""

    def __init__(self, endpoint: str, *, answer_s: float = ANSWER_S) -> None:
        self._base, self._authority = endpoint, urlsplit(endpoint).netloc
        self._answer_s = answer_s
        # No proxies of the environment and no redirects.
        self._pool = httpcore.AsyncConnectionPool(max_connections=2)

    async def close(self) -> None:
        """Ends all connections."""
        await self._pool.aclose()

    async def listen(self, listener: Listener) -> None:
        """Reads the stream of beats to its end. Raises LinkFailed."""
        async with self._answer("GET", BEATS, None) as response:
            if not 200 <= response.status < 300:
                raise LinkFailed(f"GET {BEATS} is answered {response.status}")
            events = Events()
            pieces = aiter(response.aiter_stream())
            while True:
                silence_s = listener.silence_s()
                try:
                    async with asyncio.timeout(silence_s):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise LinkFailed(f"the stream of beats was silent for {silence_s:g} s") from None
                before = events.too_large
                for data in events.feed(piece):
                    listener.hear(data)
                for _ in range(events.too_large - before):
                    listener.too_large()

    async def send(self, kind: Kind, body: bytes) -> None:
        """Posts one body. Raises LinkFailed and BodyRefused."""
        path = PATHS[kind]
        try:
            async with asyncio.timeout(self._answer_s), self._answer("POST", path, body) as response:
                # Read to its end, so that the connection can be used again.
                read = 0
                async for piece in response.aiter_stream():
                    read += len(piece)
                    if read > ANSWER_MAX_BYTES:
                        break
        except TimeoutError:
            raise LinkFailed(f"POST {path} had no answer within {self._answer_s:g} s") from None
        status = response.status
        if 200 <= status < 300:
            return
        if status >= 500 or status in _LATER:
            raise LinkFailed(f"POST {path} is answered {status}")
        raise BodyRefused(f"POST {path} is answered {status}")

    @asynccontextmanager
    async def _answer(self, method: str, path: str, body: bytes | None) -> AsyncIterator[httpcore.Response]:
        headers = {"Host": self._authority, "Accept-Encoding": "identity"}
        if body is None:
            headers["Accept"] = "text/event-stream"
        else:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        extensions: dict[str, Any] = {"timeout": {"connect": CONNECT_S, "pool": CONNECT_S}}
        try:
            request = self._pool.stream(
                method, self._base + path, headers=[*headers.items()], content=body, extensions=extensions
            )
            try:
                async with asyncio.timeout(self._answer_s):
                    response = await request.__aenter__()
            except TimeoutError:
                raise LinkFailed(f"{method} {path} had no answer within {self._answer_s:g} s") from None
            try:
                yield response
            finally:
                await request.__aexit__(None, None, None)
        except _BROKEN as error:
            raise LinkFailed(f"{type(error).__name__}: {error}"[:300]) from None

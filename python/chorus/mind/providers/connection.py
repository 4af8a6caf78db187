"""HTTP to one model's server: where it is, what its statuses mean, and nothing that it could use to make this
process go elsewhere, wait for ever or fill its memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpcore
import orjson

from chorus.mind.providers.addresses import local_address
from chorus.mind.providers.failures import Failed, Garbled
from chorus.mind.providers.lines import Lines
from chorus.mind.providers.ollama_wire import SHOWN_CHARS, raise_known
from chorus.mind.providers.retry_after import retry_after_s
from chorus.mind.thinking import ModelRefused, ModelTooLong

# A server that is there accepts at once.
CONNECT_S: Final = 10.0
ERROR_MAX_BYTES: Final = 16 * 1024
_BROKEN: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


class Connection:
    """The way to one server. `headers` may hold a key: they are sent to this server alone."""

    def __init__(self, base_url: str, headers: Mapping[str, str] | None = None) -> None:
        self.base_url = base_url
        parts = urlsplit(base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        # Compressed answers could be far larger than they look.
        self._headers = {"Accept-Encoding": "identity", **(headers or {})}
        # No proxies of the environment and no redirects; certificates are loaded where one is looked at.
        self._pool = httpcore.AsyncConnectionPool()

    async def close(self) -> None:
        """Ends all connections."""
        await self._pool.aclose()

    async def local(self) -> bool:
        """Whether its server is on this machine or in a private network."""
        try:
            return await local_address(self._host, self._port) is not None
        except OSError:
            return False

    async def fetch(
        self, method: str, path: str, body: bytes | None, most: int, *, local_only: bool = False
    ) -> bytes:
        """A whole answer of at most so many bytes. Raises Failed, Garbled and ModelRefused."""
        async with self._answer(method, path, body, local_only=local_only) as response:
            return await _read(response, most)

    @asynccontextmanager
    async def lines(self, path: str, body: bytes, *, local_only: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer as they come. Raises Failed, Garbled, NoTools, BadCall and ModelRefused."""
        async with self._answer("POST", path, body, local_only=local_only) as response:
            yield _lines(response)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: bytes | None, *, local_only: bool
    ) -> AsyncIterator[httpcore.Response]:
        url, headers = self.base_url + path, {**self._headers, "Host": self._authority}
        # No read timeout: whoever asks has a deadline for the whole.
        extensions: dict[str, Any] = {"timeout": {"connect": CONNECT_S}}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if local_only:
            # Connected to by the address that was judged: a name may have another one a moment later.
            extensions["sni_hostname"] = self._host
            url = self._at(await self._local_address()) + path
        try:
            async with self._pool.stream(
                method, url, headers=[*headers.items()], content=body, extensions=extensions
            ) as response:
                if response.status != 200:
                    await _raise_status(response)
                if _header(response, b"content-encoding") not in (None, "identity"):
                    raise Garbled("its answer is compressed, which was not asked for")
                yield response
        except _BROKEN as error:
            raise Failed(_said(error)) from None

    async def _local_address(self) -> str:
        try:
            address = await local_address(self._host, self._port)
        except OSError as error:
            raise Failed(f"{self._host} cannot be resolved: {error.strerror or error}") from None
        if address is None:
            raise ModelRefused(
                f"{self._host} is beyond loopback and private addresses, and the task asks for a local model"
            )
        return address

    def _at(self, address: str) -> str:
        parts = urlsplit(self.base_url)
        host = f"[{address}]" if ":" in address else address
        return urlunsplit(parts._replace(netloc=f"{host}:{self._port}"))


async def _lines(response: httpcore.Response) -> AsyncIterator[bytes]:
    lines = Lines()
    async for data in response.aiter_stream():
        for line in lines.feed(data):
            yield line
    for line in lines.end():
        yield line


async def _read(response: httpcore.Response, most: int) -> bytes:
    """Raises Garbled for more."""
    read = bytearray()
    async for data in response.aiter_stream():
        read += data
        if len(read) > most:
            raise Garbled(f"its answer is longer than {most} bytes")
    return bytes(read)


async def _raise_status(response: httpcore.Response) -> None:
    """Raises what a status other than 200 means: ModelRefused where the operator has to change something."""
    status = response.status
    if 300 <= status < 400:
        raise ModelRefused(
            f"it answered {status}, a redirect to {str(_header(response, b'location'))[:200]!r}, which is "
            "not followed: give the address itself"
        )
    try:
        said = _message(await _read(response, ERROR_MAX_BYTES))
    except Garbled:
        said = "(a long answer)"
    if status in (400, 422, 500):
        # NoTools, BadCall and ModelTooLong come with these.
        raise_known(said)
    reason = f"it answered {status}: {said[:SHOWN_CHARS]}"
    if status == 413:
        raise ModelTooLong(reason)
    if status in (408, 425, 429) or status >= 500:
        wait_s = retry_after_s(_header(response, b"retry-after"))
        raise Failed(reason, retry_after_s=wait_s, status=status)
    if status in (404, 405):
        # No such model, or not yet: it may be pulled while the agent runs.
        raise Failed(reason, again=False, status=status)
    raise ModelRefused(reason)


def _message(body: bytes) -> str:
    """What an error says, in either wire's form."""
    try:
        said: Any = orjson.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
    error = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(error, dict):
        error = error.get("message", error)
    return error if isinstance(error, str) else body.decode(errors="replace")


def _header(response: httpcore.Response, name: bytes) -> str | None:
    found = (value for key, value in response.headers if key.lower() == name)
    return next((value.decode("latin-1") for value in found), None)


def _said(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectTimeout):
        return f"no connection within {CONNECT_S:g} s"
    what = "no connection" if isinstance(error, httpcore.ConnectError) else "the connection broke off"
    return f"{what}: {error}" if str(error) else what

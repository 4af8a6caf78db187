"""HTTP to one model's server: where it is, what its statuses mean, and nothing that it could use to make this
process go elsewhere, wait for ever or fill its memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson

from chorus.mind.providers.addresses import local_address
from chorus.mind.providers.failures import Failed, Garbled
from chorus.mind.providers.lines import Lines
from chorus.mind.providers.ollama_wire import SHOWN_CHARS, raise_known
from chorus.mind.providers.retry_after import retry_after_s
from chorus.mind.thinking import ModelRefused

# A server that is there accepts at once.
CONNECT_S: Final = 10.0
ERROR_MAX_BYTES: Final = 16 * 1024


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
        self._client = httpx.AsyncClient(
            # No read timeout: whoever asks has a deadline for the whole.
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            # Certificates are loaded, some megabytes of them, only where one will be looked at.
            verify=parts.scheme == "https",
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.aclose()

    async def local(self) -> bool:
        """Whether its server is on this machine or in a private network."""
        try:
            return await local_address(self._host, self._port) is not None
        except OSError:
            return False

    async def fetch(self, method: str, path: str, body: bytes | None, most: int) -> bytes:
        """A whole answer of at most so many bytes. Raises Failed, Garbled and ModelRefused."""
        async with self._answer(method, path, body, local_only=False) as response:
            return await _read(response, most)

    @asynccontextmanager
    async def lines(self, path: str, body: bytes, *, local_only: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer as they come. Raises Failed, Garbled, NoTools, BadCall and ModelRefused."""
        async with self._answer("POST", path, body, local_only=local_only) as response:
            yield _lines(response)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: bytes | None, *, local_only: bool
    ) -> AsyncIterator[httpx.Response]:
        url, headers, extensions = self.base_url + path, dict(self._headers), {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if local_only:
            # Connected to by the address that was judged: a name may have another one a moment later.
            headers["Host"] = self._authority
            extensions = {"sni_hostname": self._host}
            url = self._at(await self._local_address()) + path
        try:
            async with self._client.stream(
                method, url, content=body, headers=headers, extensions=extensions
            ) as response:
                if response.status_code != 200:
                    await _raise_status(response)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Garbled("its answer is compressed, which was not asked for")
                yield response
        except httpx.HTTPError as error:
            raise Failed(_said(error)) from None
        except httpx.InvalidURL as error:
            raise ModelRefused(f"the address cannot be used: {error}") from None

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


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    lines = Lines()
    async for data in response.aiter_raw():
        for line in lines.feed(data):
            yield line
    for line in lines.end():
        yield line


async def _read(response: httpx.Response, most: int) -> bytes:
    """Raises Garbled for more."""
    read = bytearray()
    async for data in response.aiter_raw():
        read += data
        if len(read) > most:
            raise Garbled(f"its answer is longer than {most} bytes")
    return bytes(read)


async def _raise_status(response: httpx.Response) -> None:
    """Raises what a status other than 200 means: ModelRefused where the operator has to change something."""
    status = response.status_code
    if 300 <= status < 400:
        raise ModelRefused(
            f"it answered {status}, a redirect to {str(response.headers.get('location'))[:200]!r}, which is "
            "not followed: give the address itself"
        )
    try:
        said = _message(await _read(response, ERROR_MAX_BYTES))
    except Garbled:
        said = "(a long answer)"
    if status in (400, 422, 500):
        # NoTools and BadCall come with these.
        raise_known(said)
    reason = f"it answered {status}: {said[:SHOWN_CHARS]}"
    if status in (408, 425, 429) or status >= 500:
        wait_s = retry_after_s(response.headers.get("retry-after"))
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


def _said(error: httpx.HTTPError) -> str:
    words: dict[type[httpx.HTTPError], str] = {
        httpx.ConnectError: "no connection",
        httpx.ConnectTimeout: f"no connection within {CONNECT_S:g} s",
        httpx.RemoteProtocolError: "the connection broke off",
        httpx.ReadError: "the connection broke off",
    }
    what = words.get(type(error), type(error).__name__)
    return f"{what}: {error}" if str(error) else what

"""Fetches an assignment's document from where `ASSIGN_URL` says, within bounds.

With the standard library alone: a client that the parent loaded for this would cost it tens of megabytes.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from chorus.config.private import is_private

T = TypeVar("T")

DOCUMENT_MAX_BYTES: Final = 256 * 1024
# For everything: connecting, redirects, reading.
FETCH_TIMEOUT_S: Final = 10.0
REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_READ_BYTES: Final = 64 * 1024
_DENIED: Final = (401, 403)


class FetchFailed(Exception):
    """Why there is no document now, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer. `content` is None where the copy at hand is still the newest."""

    content: bytes | None
    etag: str
    # Whether nobody on the way could have read or changed it.
    private: bool


def fetch(url: str, token: str = "", etag: str = "") -> Fetched:
    """Fetches the document; raises `FetchFailed`. May take `FETCH_TIMEOUT_S`, and a slow resolver's time."""
    try:
        if urlsplit(url).scheme == "file":
            return _read_file(url)
        return _get(url, token, etag, time.monotonic() + FETCH_TIMEOUT_S)
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FetchFailed(f"{shown(url)}: {why}. See that ASSIGN_URL is right and reachable") from None


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


async def in_thread(work: Callable[[], T], timeout_s: float) -> T:
    """Does work that may hang in a thread that nothing waits for; raises TimeoutError."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            value, error = work(), None
        except Exception as raised:
            value, error = None, raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="assignment", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await done


def _read_file(url: str) -> Fetched:
    path = Path(unquote(urlsplit(url).path))
    with path.open("rb") as file:
        content = file.read(DOCUMENT_MAX_BYTES + 1)
    _check_size(content)
    return Fetched(content, "", True)


def _get(url: str, token: str, etag: str, deadline: float) -> Fetched:
    origin, private = urlsplit(url)[:2], True
    for _ in range(REDIRECTS_MAX + 1):
        parts = urlsplit(url)
        private = private and is_private(url)
        # The token is for the server that was named, not for where that sends us.
        headers = {"Accept": "application/json", "User-Agent": "chorus-agent"}
        if token and parts[:2] == origin:
            headers["Authorization"] = f"Bearer {token}"
        if etag:
            headers["If-None-Match"] = etag
        connection = _connection(parts.scheme, parts.netloc, _left(deadline))
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            if answer.status in _REDIRECTS:
                url = urljoin(url, answer.getheader("Location") or "")
                if urlsplit(url).scheme != parts.scheme:
                    raise ValueError(f"it sends us to another scheme, {urlsplit(url).scheme[:20]!r}")
                continue
            if answer.status == http.client.NOT_MODIFIED and etag:
                return Fetched(None, etag, private)
            if answer.status != http.client.OK:
                remedy = ", look at ASSIGN_TOKEN" if answer.status in _DENIED else ""
                raise ValueError(f"the server answered {answer.status}{remedy}")
            return Fetched(_read(connection, answer, deadline), answer.getheader("ETag") or "", private)
        finally:
            connection.close()
    raise ValueError(f"more than {REDIRECTS_MAX} redirects")


def _connection(scheme: str, netloc: str, timeout_s: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(netloc, timeout=timeout_s)
    return http.client.HTTPConnection(netloc, timeout=timeout_s)


def _read(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, however slowly it comes, within the time that is left."""
    pieces: list[bytes] = []
    size = 0
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(_left(deadline))
        piece = answer.read1(_READ_BYTES)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > DOCUMENT_MAX_BYTES:
            break
    content = b"".join(pieces)
    _check_size(content)
    if answer.length:
        raise ValueError("the answer ended early")
    return content


def _check_size(content: bytes) -> None:
    if len(content) > DOCUMENT_MAX_BYTES:
        raise ValueError(f"the document is larger than {DOCUMENT_MAX_BYTES} bytes")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise ValueError(f"it took more than {FETCH_TIMEOUT_S:g} s")
    return left

"""Bounds on what a client may send before it is known, over real sockets and on both ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from chorus.api import connection
from chorus.api.connection import HEAD_MAX_BYTES, HEADERS_MAX_COUNT, TARGET_MAX_BYTES

from .conftest import TOKEN, Surface

DEADLINE_S = 60.0
MIB = 1024 * 1024
START = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = b"POST /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
TOKEN_LINE = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\r\n".encode()
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "many headers": (START, b"X-A: b\r\n" * 8192),
    "few large headers": (START, b"X-A: " + b"b" * 60_000 + b"\r\n"),
    "one header": (START + b"X-A: ", b"b" * 65536),
    "a header's name": (START, b"b" * 65536),
    "the target": (b"GET /", b"a" * 65536),
    "the method": (b"", b"A" * 65536),
    "empty lines": (b"", b"\r\n" * 32768),
    "a chunk's extension": (CHUNKED + TOKEN_LINE + b"1;a=", b"b" * 65536),
    "small chunks with extensions": (CHUNKED + TOKEN_LINE, b"1;a=" + b"b" * 1000 + b"\r\nx\r\n"),
    "zeros before a chunk's size": (CHUNKED + TOKEN_LINE, b"0" * 65536),
    "trailers": (CHUNKED + TOKEN_LINE + b"1\r\n{\r\n0\r\n", b"X-A: b\r\n" * 8192),
    "one trailer": (CHUNKED + TOKEN_LINE + b"1\r\n{\r\n0\r\nX-A: ", b"b" * 65536),
}


@pytest.fixture(params=["api", "probes"])
def port(surface: Surface, request: pytest.FixtureRequest) -> int:
    found = getattr(surface, request.param).base_url.port
    assert isinstance(found, int)
    return found


def exchange(port: int, pieces: Iterable[bytes]) -> bytes:
    """Sends until the other side has had enough, and gives all that it answered."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                answer += piece
    return answer


async def ask(port: int, *pieces: bytes) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.to_thread(exchange, port, pieces)


def resident_bytes() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def problem(answer: bytes) -> tuple[int, str]:
    """Status and detail of the only answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer[:300]
    assert b"connection: close" in head.lower()
    return int(head.split(b" ")[1]), json.loads(body)["detail"]


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_never_ends_is_refused_at_its_bound(surface: Surface, port: int, what: str) -> None:
    first, more = ENDLESS[what]
    if first.startswith(CHUNKED):
        # Told to whoever reads the body; the probes have answered before it comes.
        port = surface.api.base_url.port or 0
    # Enough to pass every bound, little enough to lie in the sockets' buffers: the answer is always read.
    count = 2 * HEAD_MAX_BYTES // len(more) + 2
    status, detail = problem(await ask(port, first, *[more] * count))
    expected = {"the target": 414, "the method": 400, "a header's name": 431}.get(what, 431)
    assert status == expected, detail
    assert status == 400 or re.search(r"\d", detail), detail


@pytest.mark.heavy
@pytest.mark.parametrize("what", ENDLESS)
async def test_what_never_ends_takes_no_memory(port: int, what: str) -> None:
    first, more = ENDLESS[what]
    piece = more * max(1, 65536 // len(more))
    before = resident_bytes()
    highest = 0

    def pieces() -> Iterator[bytes]:
        nonlocal highest
        for piece_now in chain([first], repeat(piece, 60 * MIB // len(piece))):
            highest = max(highest, resident_bytes())
            yield piece_now

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.to_thread(exchange, port, pieces())
    assert highest - before < 16 * MIB


@pytest.mark.heavy
@pytest.mark.parametrize("ended", [b"", b"\r\n\r\n"], ids=["unfinished", "answered"])
async def test_many_large_heads_take_little_memory(port: int, ended: bytes) -> None:
    head = START + b"X-A: " + b"b" * 60_000 + ended

    def connect(count: int) -> list[socket.socket]:
        opened = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
            opened.append(client)
            with contextlib.suppress(ConnectionError):
                client.sendall(head)
                if ended:
                    client.recv(65536)
        return opened

    async with asyncio.timeout(DEADLINE_S):
        before = resident_bytes()
        opened = await asyncio.to_thread(connect, 400)
        grown = resident_bytes() - before
    for client in opened:
        client.close()
    assert grown < 24 * MIB


def headers(count: int, size: int) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (number, b"b" * size) for number in range(count))


@pytest.mark.parametrize(
    ("build", "status"),
    [
        (lambda: START + headers(HEADERS_MAX_COUNT - 1, 1), 200),
        (lambda: START + headers(HEADERS_MAX_COUNT, 1), 431),
        (lambda: START + b"X-A: " + b"b" * (HEAD_MAX_BYTES - len(START) - 9), 200),
        (lambda: START + b"X-A: " + b"b" * (HEAD_MAX_BYTES - len(START) - 8), 431),
        (lambda: b"GET /healthz?" + b"a" * (TARGET_MAX_BYTES - 9) + START[12:], 200),
        (lambda: b"GET /healthz?" + b"a" * (TARGET_MAX_BYTES - 8) + START[12:], 414),
    ],
)
async def test_the_bounds_are_where_they_are_said(
    surface: Surface, build: Callable[[], bytes], status: int
) -> None:
    port = surface.probes.base_url.port
    assert port is not None
    head = build()
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + (b"\r\n" if head.endswith(b"\r\n") else b"\r\n\r\n"))
        answer = await reader.readline()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer


async def test_a_request_is_answered_once(surface: Surface) -> None:
    port = surface.probes.base_url.port
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED + b"\r\n1;a=")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 404 " in answer
        with contextlib.suppress(ConnectionError):
            for _ in range(4):
                writer.write(b"b" * 65536)
                await writer.drain()
        rest = b""
        with contextlib.suppress(ConnectionError):
            rest = await reader.read()
        assert b"HTTP/1.1" not in rest


async def test_requests_sent_ahead_are_bounded(port: int) -> None:
    asked = (START + b"\r\n") * 20_000
    answer = await ask(port, asked)
    assert 1 <= answer.count(b"HTTP/1.1 ") < 100
    assert b"connection: close" in answer.rpartition(b"HTTP/1.1 ")[2].lower()


async def test_a_request_before_a_malformed_one_is_answered(port: int) -> None:
    answer = await ask(port, START + b"\r\n" + b"{}\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()


async def test_unfinished_heads_are_bounded_together(
    surface: Surface, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ALL_HEADS_MAX_BYTES", 200_000)
    async with asyncio.timeout(DEADLINE_S):
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        ends = [asyncio.create_task(reader.read()) for reader, _ in opened]
        for number, (_, writer) in enumerate(opened):
            writer.write(START + b"X-A: " + b"b" * (50_000 + number))
        # All of them would be 500,000 bytes: some have to go, and an honest request is answered meanwhile.
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert (await surface.probes.get("/healthz")).status_code == 200
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_a_long_body_in_small_chunks_is_taken(surface: Surface) -> None:
    port = surface.api.base_url.port
    assert port is not None
    pieces = [b'{"title": "t", "commands": ["true"], "description": "', *[b"ab"] * 30_000, b'"}']
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    answer = await ask(port, CHUNKED + b"Connection: close\r\n" + TOKEN_LINE, body)
    assert answer.startswith(b"HTTP/1.1 201 "), answer[:300]


async def test_an_upgrade_is_not_made(port: int) -> None:
    answer = await ask(port, START + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nmore of another protocol")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()

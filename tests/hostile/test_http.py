"""Without a token nobody makes a process of an agent hold what it sends, on either port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from e2e.conftest import Mesh

from .processes import rss_bytes, work_goes_on

pytestmark = pytest.mark.e2e

LINE = b"X-More: " + b"y" * 8000 + b"\r\n"
SENT_MAX_BYTES = 32 << 20


def header_lines() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: x\r\n"
    while True:
        yield LINE


def one_header() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX-More: "
    while True:
        yield b"y" * 8192


def target() -> Iterator[bytes]:
    yield b"GET /"
    while True:
        yield b"y" * 8192


def chunk_extension() -> Iterator[bytes]:
    yield b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;x="
    while True:
        yield b"y" * 8192


def trailers() -> Iterator[bytes]:
    yield b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    while True:
        yield LINE


def first_line(address: str, pieces: Iterator[bytes]) -> bytes:
    """Sends until the agent answers, closes, or has been sent all that it may be; returns its status line."""
    where = urlsplit(address)
    sent = 0
    with socket.create_connection((where.hostname, where.port), timeout=60) as client:
        try:
            while sent < SENT_MAX_BYTES:
                piece = next(pieces)
                client.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        try:
            return client.recv(4096).split(b"\r\n")[0]
        except OSError:
            # Closed with bytes of ours unread: the answer may be lost on the way, the refusal is not.
            return b""


@pytest.mark.parametrize("port", ["api", "health"])
@pytest.mark.parametrize("pieces", [header_lines, one_header, target, chunk_extension, trailers])
def test_endless_heads_are_refused_and_not_held(mesh: Mesh, port: str, pieces: object) -> None:
    agent = mesh.agents[0]
    api = agent.processes()["api"]
    before = rss_bytes(api)
    for _ in range(4):
        assert callable(pieces)
        line = first_line(getattr(agent, port), pieces())
        assert line == b"" or line.split()[1].startswith(b"4"), line
    assert rss_bytes(api) - before < 32 << 20
    work_goes_on(mesh)

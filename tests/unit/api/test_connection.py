"""Clients that hold connections without asking for anything: over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from chorus.api import connection

from .conftest import TOKEN, Surface

DEADLINE_S = 30.0
REQUEST = f"GET /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def port(surface: Surface) -> int:
    found = surface.api.base_url.port
    assert found is not None
    return found


async def open_to(port: int) -> Opened:
    return await asyncio.open_connection("127.0.0.1", port)


async def answer(opened: Opened) -> bytes:
    """The status line of the next answer; its body is read too."""
    reader, _ = opened
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    await reader.readexactly(int(length.split(b":")[1]))
    return head.split(b"\r\n")[0]


async def cut_off(opened: Opened) -> bool:
    """Waits until the other side has closed; False if it sent something instead."""
    try:
        return await opened[0].read(1) == b""
    except ConnectionError:
        return True


async def test_silence_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_MAX_S", 0.05)
    async with asyncio.timeout(DEADLINE_S):
        assert await cut_off(await open_to(port))


async def test_headers_byte_by_byte_are_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_MAX_S", 0.1)
    opened = await open_to(port)
    gone = asyncio.create_task(cut_off(opened))
    endless = b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 100_000
    async with asyncio.timeout(DEADLINE_S):
        for byte in endless:
            if gone.done():
                break
            opened[1].write(bytes([byte]))
            await asyncio.sleep(0.002)
        assert await gone


@pytest.mark.parametrize("dribble", [b"\r\n", b"G"])
async def test_the_second_request_has_no_more_time(
    port: int, monkeypatch: pytest.MonkeyPatch, dribble: bytes
) -> None:
    opened = await open_to(port)
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            opened[1].write(REQUEST + b"\r\n")
            assert b"200" in await answer(opened)
        monkeypatch.setattr(connection, "HEADERS_MAX_S", 0.05)
        opened[1].write(dribble)
        assert await cut_off(opened)


async def test_a_request_under_way_has_its_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_MAX_S", 0.05)
    opened = await open_to(port)
    async with asyncio.timeout(DEADLINE_S):
        # The body comes long after the headers; slow bodies are the guard's business.
        opened[1].write(
            b"POST" + REQUEST[3:] + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
        )
        assert await cut_off(await open_to(port))
        opened[1].write(b"}")
        assert b"422" in await answer(opened)


async def test_the_longest_idle_makes_room(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CROWDED_CONNECTIONS", 8)
    monkeypatch.setattr(connection, "IDLE_MIN_S", 0.0)
    async with asyncio.timeout(DEADLINE_S):
        busy = await open_to(port)
        busy[1].write(b"POST" + REQUEST[3:] + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{")
        silent = []
        for _ in range(40):
            silent.append(await open_to(port))
            # Served in spite of them, each time.
            client = await open_to(port)
            client[1].write(REQUEST + b"\r\n")
            assert b"200" in await answer(client)
            client[1].close()
        assert all([await cut_off(opened) for opened in silent[:30]])
        busy[1].write(b"}")
        assert b"422" in await answer(busy)
    for opened in silent:
        opened[1].close()


async def test_a_burst_of_clients_is_served(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CROWDED_CONNECTIONS", 8)
    monkeypatch.setattr(connection, "IDLE_MIN_S", DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S):
        # All of them are there before the first asks for anything.
        clients = [await open_to(port) for _ in range(40)]
        for client in clients:
            client[1].write(REQUEST + b"\r\n")
        assert all([b"200" in await answer(client) for client in clients])
    for client in clients:
        client[1].close()

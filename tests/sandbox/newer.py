"""The installed Docker daemon made to answer as a newer one: other versions, fields removed and omitted.

After the version history of Docker's API up to 1.52 (Docker Engine 29).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

from proxy import DOCKER

NEWEST, OLDEST = (1, 52), (1, 44)
# Of `GET /containers/{id}/json`, since 1.52 and before.
NETWORK = {
    "Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses",
    "SecondaryIPv6Addresses", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen",
    "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress",
}  # fmt: skip
REMOVED = {
    "GraphDriver", "KernelMemoryTCP", "KernelMemory", "OnBuild", "Parent", "Comment", "DockerVersion",
    "Author", "Container", "ContainerConfig", "VirtualSize", "NetworkDisabled", *NETWORK,
}  # fmt: skip
_TARGET = re.compile(r"/v(\d+)\.(\d+)(/.*)")


class NewerDaemon:
    """A Unix socket; each connection carries one request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        """As DOCKER_HOST."""
        return f"unix://{self.path}"

    async def start(self) -> None:
        """Accepts connections."""
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def stop(self) -> None:
        """Ends all connections."""
        assert self._server
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, _, fields = head.partition("\r\n")
        method, target, _ = line.split(" ")
        versioned = _TARGET.fullmatch(target)
        if versioned:
            version = int(versioned[1]), int(versioned[2])
            self.asked.append(f"{version[0]}.{version[1]}")
            if not OLDEST <= version <= NEWEST:
                word, bound = ("old", OLDEST) if version < OLDEST else ("new", NEWEST)
                asked = self.asked[-1]
                said = f"client version {asked} is too {word}. Supported is {bound[0]}.{bound[1]}"
                return _answer(writer, 400, {"message": said})
            target = f"/v1.41{versioned[3]}"
        if method == "POST" and "/images/create" in target:
            return _answer(writer, 200, {"errorDetail": {"message": "no such image in a simulation"}})
        docker_reader, docker_writer = await asyncio.open_unix_connection(DOCKER)
        if "upgrade" not in fields.lower():
            fields = re.sub(r"(?im)^connection:.*\r\n", "", fields).replace(
                "\r\n\r\n", "\r\nConnection: close\r\n\r\n"
            )
        docker_writer.write(f"{method} {target} HTTP/1.1\r\n{fields}".encode())
        up = asyncio.create_task(_pump(reader, docker_writer))
        try:
            if method == "GET" and (target == "/version" or target.endswith("/json")):
                answer = await docker_reader.read()
                told, _, body = answer.partition(b"\r\n\r\n")
                if b"chunked" in told.lower():
                    body = _unchunked(body)
                _answer(writer, int(told.split()[1]), _newer(target, json.loads(body)))
            else:
                await _pump(docker_reader, writer)
        finally:
            up.cancel()
            docker_writer.close()


def _newer(target: str, said: Any) -> Any:
    if target == "/version":
        dotted = [f"{major}.{minor}" for major, minor in (NEWEST, OLDEST)]
        return {
            **said,
            "Version": "29.0.0",
            "ApiVersion": dotted[0],
            "MinAPIVersion": dotted[1],
            "Components": [],
        }
    if isinstance(said, dict):
        return {
            name: _newer("", value)
            for name, value in said.items()
            if name not in REMOVED and not (name == "Config" and value is None)
        }
    return [_newer("", item) for item in said] if isinstance(said, list) else said


def _answer(writer: asyncio.StreamWriter, status: int, said: Any) -> None:
    body = json.dumps(said).encode()
    head = ["Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]
    writer.write("\r\n".join([f"HTTP/1.1 {status} X", *head, "", ""]).encode() + body)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return whole


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

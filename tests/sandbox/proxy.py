"""A Unix socket in front of Docker's that can be cut, hung and healed: a daemon that fails on command."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

DOCKER = "/var/run/docker.sock"


class DockerProxy:
    """Passes bytes through until told otherwise."""

    def __init__(self, path: Path, target: str = DOCKER) -> None:
        self.path = path
        self._target = target
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def host(self) -> str:
        """As DOCKER_HOST."""
        return f"unix://{self.path}"

    async def start(self) -> None:
        """Accepts connections."""
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def cut(self) -> None:
        """The daemon is gone: connections break, new ones are refused."""
        if self._server:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def hang(self) -> None:
        """The daemon says nothing more, but its socket stays."""
        self._flowing.clear()

    def heal(self) -> None:
        """The daemon goes on where it was."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            out_reader, out_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.close()
            return
        pipes = [
            asyncio.create_task(self._pipe(reader, out_writer)),
            asyncio.create_task(self._pipe(out_reader, writer)),
        ]
        self._pipes.update(pipes)
        await asyncio.wait(pipes, return_when=asyncio.ALL_COMPLETED)
        self._pipes.difference_update(pipes)
        for one in (writer, out_writer):
            one.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

"""The plainest thing two processes can do: bytes over a Unix socket and back, on either loop of asyncio.

`python -m bench.raw serve|ping asyncio|uvloop SOCKET [COUNT BYTES]`; `ping` prints the microseconds of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

from bench.timing import measured


async def serve(path: str) -> None:
    """Sends back what comes; its line says that it is ready."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # Not isinstance: uvloop's transports are Transports in all but name.
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    await asyncio.get_running_loop().create_unix_server(Echo, path)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def ping(path: str, count: str, size: str) -> None:
    """One after the other."""
    reader, writer = await asyncio.open_unix_connection(path)
    payload = b"x" * int(size)

    async def once(_: int) -> object:
        writer.write(payload)
        return await reader.readexactly(len(payload))

    print(json.dumps(await measured(int(count), once)))
    writer.close()


if __name__ == "__main__":
    what, loop, *rest = sys.argv[1:]
    run = uvloop.run if loop == "uvloop" else asyncio.run
    run(serve(*rest) if what == "serve" else ping(*rest))

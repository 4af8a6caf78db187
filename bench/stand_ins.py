"""The other ends of the benches, each a process of its own: cores, and echoes of three kinds."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from chorus.core import Node
from chorus.hub import Hub, Reply, Request

# What both cores of a bench share; any 24 bytes would do.
SECRET = b"a secret for measurements"
TOPIC, TYPE = "chorus/health", "health_status"


async def core(bootstrap: str) -> None:
    """A core in a process of its own, as in an agent; its line: hub socket and address."""
    async with Node(SECRET, bootstrap=[bootstrap] if bootstrap else []) as node:
        print(node.hub_path, node.addresses[0], flush=True)
        await asyncio.Event().wait()


async def service(hub_path: str) -> None:
    """Answers calls of a sibling with what they carry."""

    async def echo(request: Request) -> Reply:
        return Reply({}, request.payload)

    async with await Hub.connect(hub_path, "echo") as hub:
        await hub.offer("echo", echo)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def gossip(hub_path: str) -> None:
    """Publishes again what it hears."""
    async with await Hub.connect(hub_path, "echo") as hub, hub.subscribe(TOPIC) as messages:
        print("ready", flush=True)
        async for message in messages:
            await hub.publish(TOPIC, TYPE, message.data)


async def raw(path: str) -> None:
    """The plainest thing possible: asyncio on a Unix socket, bytes back as they came."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # Not isinstance: uvloop's transports are Transports in all but name.
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    await asyncio.get_running_loop().create_unix_server(Echo, path)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run({"core": core, "service": service, "gossip": gossip, "raw": raw}[sys.argv[1]](sys.argv[2]))

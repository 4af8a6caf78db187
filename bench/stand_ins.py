"""The other ends of the benches, each a process of its own: cores, and echoes of two kinds."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from contextlib import AsyncExitStack
from pathlib import Path

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


async def records(what: str) -> None:
    """As many cores as `what` says, in its folder, that know each other; its line: two hub sockets."""
    count, folder = int(what.split()[0]), Path(what.split()[1])
    async with AsyncExitStack() as stack:
        nodes = list[Node]()
        for number in range(count):
            bootstrap = [address for node in nodes for address in node.addresses]
            node = Node(
                SECRET, bootstrap=bootstrap, role="developer", threads=1, data_dir=folder / str(number)
            )
            nodes.append(await stack.enter_async_context(node))
        for node in nodes:
            async with node.events() as events:
                while len((await node.hub.net_state())["peers"]) < count - 1:
                    await events.get()
        # Identify has told everybody who holds records: a put then has all the others to choose from.
        value = b"a record that everybody holds"
        name = hashlib.sha256(value).hexdigest()
        await nodes[0].dht_put("content", name, value)
        while not all([(await node.hub.stats())["dht_records"] for node in nodes]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print(nodes[0].hub_path, nodes[-1].hub_path, flush=True)
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


STAND_INS = {"core": core, "records": records, "service": service, "gossip": gossip}

if __name__ == "__main__":
    uvloop.run(STAND_INS[sys.argv[1]](sys.argv[2]))

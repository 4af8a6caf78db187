"""The other ends of the benches, each a process of its own: cores, two kinds of echo, an idle executor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from chorus.core import Node
from chorus.executor.proposals import propose
from chorus.hub import ByteStream, Hub, Reply, Request

# What both cores of a bench share; any 24 bytes would do.
SECRET = b"a secret for measurements"
TOPIC, TYPE = "chorus/health", "health_status"
# As many messages may wait for a reader as the hub allows (docs/ipc.md).
QUEUE = 65_536
# What of a burst has not come by then after its last message is lost.
QUIET_S = 5.0


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
    """Answers calls of siblings and peers with what they carry, streams with how many bytes they carried."""

    async def echo(request: Request) -> Reply:
        return Reply({}, request.payload)

    async def count(_: Request, stream: ByteStream) -> None:
        got = 0
        async for chunk in stream:
            got += len(chunk)
        await stream.write(str(got).encode())

    async with await Hub.connect(hub_path, "echo") as hub:
        await hub.offer("echo", echo, peers=True, streams=count)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def gossip(hub_path: str) -> None:
    """Publishes again what it hears."""
    async with await Hub.connect(hub_path, "echo") as hub, hub.subscribe(TOPIC) as messages:
        print("ready", flush=True)
        async for message in messages:
            await hub.publish(TOPIC, TYPE, message.data)


async def count(hub_path: str) -> None:
    """Answers a burst, whose messages have numbers `n` below `of`, with how many of them have come: once all
    have, or once no more come.
    """
    async with await Hub.connect(hub_path, "count") as hub, hub.subscribe(TOPIC, queue=QUEUE) as messages:
        print("ready", flush=True)
        arrived, wanted = set[int](), 0
        while True:
            message = messages.get_nowait()
            if message is None:
                with contextlib.suppress(TimeoutError):
                    message = await asyncio.wait_for(messages.get(), QUIET_S if arrived else None)
            if message is not None:
                details = message.data["details"]
                wanted = details["of"]
                arrived.add(details["n"])
            if message is None or len(arrived) == wanted:
                await hub.publish(TOPIC, TYPE, {"status": "healthy", "details": {"arrived": len(arrived)}})
                arrived.clear()


async def executor(hub_path: str) -> None:
    """Stands in for an agent's executor, whose process was stopped: says that each task has completed as
    soon as it is awarded.
    """
    under_way = set[asyncio.Task[None]]()
    answers: dict[str, dict[str, Any]] = {
        "health": {"ok": True, "detail": "runs nothing", "docker": {"ok": True, "detail": "not needed"}},
        "profile": {"accepting": True, "reason": "", "images": [], "languages": [], "models": []},
        "award": {"accepted": True},
        "drain": {"done": True, "active": 0},
        "release": {"done": True, "released": 0},
    }

    async def run(attempt: dict[str, Any]) -> None:
        ended = {"outcome": "completed", "exit_code": 0}
        for type, more in (("claim", {}), ("started", {}), ("result", ended)):
            outcome = await propose(hub, type, {**attempt, **more})
            if outcome is None or not outcome.accepted:
                return

    async def serve(request: Request) -> dict[str, Any]:
        if request.method == "award":
            attempt = {key: request.head[key] for key in ("task_id", "attempt")}
            running = asyncio.create_task(run(attempt))
            under_way.add(running)
            running.add_done_callback(under_way.discard)
        return answers[request.method]

    async with await Hub.connect(hub_path, "executor") as hub:
        await hub.offer("executor", serve, peers=True)
        print("ready", flush=True)
        await asyncio.Event().wait()


STAND_INS = {
    "core": core,
    "records": records,
    "service": service,
    "gossip": gossip,
    "count": count,
    "executor": executor,
}


async def _until_ended(what: str, argument: str) -> None:
    """Runs one until SIGTERM, and then lets it remove what it made, also when it is told again."""
    task = asyncio.ensure_future(STAND_INS[what](argument))

    def end() -> None:
        if not task.cancelling():
            task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    uvloop.run(_until_ended(*sys.argv[1:]))

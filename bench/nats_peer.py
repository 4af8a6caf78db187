"""The peer of a request: nats-py on either loop of asyncio, by way of a NATS server.

`python -m bench.nats_peer serve|ask asyncio|uvloop URL [COUNT BYTES]`; `ask` prints the microseconds of each.
"""

from __future__ import annotations

import asyncio
import json
import sys

import nats
import uvloop
from nats.aio.msg import Msg

from bench.timing import measured


async def serve(subject: str, url: str) -> None:
    """Sends back what comes; its line says that it is ready."""

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    client = await nats.connect(url)
    await client.subscribe(subject, cb=echo)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def ask(subject: str, url: str, count: str, size: str) -> None:
    """One after the other."""
    client = await nats.connect(url)
    payload = b"x" * int(size)
    print(json.dumps(await measured(int(count), lambda _: client.request(subject, payload))))
    await client.close()


if __name__ == "__main__":
    what, loop, *rest = sys.argv[1:]
    run = uvloop.run if loop == "uvloop" else asyncio.run
    # Each loop has a server of its own at the other end.
    run(serve(loop, *rest) if what == "serve" else ask(loop, *rest))

"""Benches of two peers that speak with each other directly: a request beside NATS, a stream beside TCP."""

from __future__ import annotations

import time
from typing import Final

from bench.figures import Amounts, Comparison, figures
from bench.local import CALLS, PAYLOAD_BYTES
from bench.processes import module, numbers, peer_of, running, two_cores
from bench.timing import measured
from chorus.hub import Hub
from chorus.testing.nats import Nats

# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS: Final = 5
STREAM_BYTES: Final = 256 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024


async def request() -> list[Comparison]:
    """Python, hub, core, core, hub, Python and back, beside a request from Python by way of a NATS server.

    The hub's clients run on uvloop. The peer's is asyncio's own loop, as most programs have it; what uvloop
    alone makes of it stands beside that.
    """
    payload = b"x" * PAYLOAD_BYTES
    ours = list[float]()
    peers: dict[str, list[float]] = {"asyncio": [], "uvloop": []}
    with Nats() as nats:
        async with (
            two_cores() as (near, far),
            running(*module("stand_ins", "service", far)),
            running(*module("nats_peer", "serve", "asyncio", nats.url)),
            running(*module("nats_peer", "serve", "uvloop", nats.url)),
            await Hub.connect(near, "bench") as hub,
        ):
            peer = await peer_of(hub)
            for _ in range(ROUNDS):
                ours += await measured(CALLS, lambda _: hub.request(peer, "echo", "echo", None, payload))
                for loop, taken in peers.items():
                    ask = module("nats_peer", "ask", loop, nats.url, str(CALLS), str(PAYLOAD_BYTES))
                    taken += await numbers(*ask)
    what = f"request to a peer, Python to Python, {PAYLOAD_BYTES} B"
    return [
        Comparison(what, figures("chorus", ours), figures(f"NATS, nats-py, {loop}", taken), 1.0)
        for loop, taken in peers.items()
    ]


async def bulk() -> list[Amounts]:
    """Bytes from one peer's Python through both hubs to the other's, beside TCP between two Pythons."""
    ours, peer = list[float](), list[float]()
    async with (
        two_cores() as (near, far),
        running(*module("stand_ins", "service", far)),
        running(*module("tcp", "serve")) as port,
        await Hub.connect(near, "bench") as hub,
    ):
        far_peer = await peer_of(hub)
        for _ in range(ROUNDS):
            ours.append(await _streamed(hub, far_peer))
            peer += await numbers(*module("tcp", "send", port, str(STREAM_BYTES), str(CHUNK_BYTES)))
    what = f"direct stream, encrypted, Python to Python, {STREAM_BYTES // 2**20} MiB"
    peer_name = "loopback TCP, no hub, not encrypted"
    return [Amounts(what, "MB/s", ours, 300, at_least=True, peer_name=peer_name, peer=peer, shown=True)]


async def _streamed(hub: Hub, peer: str) -> float:
    """Megabytes a second, until the other end says that it has all."""
    chunk = bytes(CHUNK_BYTES)
    async with await hub.open_stream("echo", "count", peer=peer) as stream:
        started = time.perf_counter()
        for _ in range(STREAM_BYTES // CHUNK_BYTES):
            await stream.write(chunk)
        await stream.end()
        got = int(await stream.read_all(64))
        taken = time.perf_counter() - started
    if got != STREAM_BYTES:
        raise RuntimeError(f"of {STREAM_BYTES:,} bytes of a stream {got:,} arrived")
    return STREAM_BYTES / taken / 1e6

"""Benches without agents: a call between processes, a pubsub round trip of two nodes, an address read."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

from bench.figures import Comparison, figures
from bench.processes import go_peers, module, numbers, peer_of, running, two_cores
from bench.stand_ins import TOPIC, TYPE
from bench.timing import measured
from chorus.core import Ucxl
from chorus.hub import Hub

PAYLOAD_BYTES = 256
# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS = 5
CALLS = 1000
ROUND_TRIPS = 1000
# Two heartbeats of gossipsub: both nodes are in the topic's mesh.
SETTLE_S = 2.0
# A parse is shorter than the clock is fine: it takes the time of many.
PARSES = 1000
ADDRESS = "ucxl://agent-7:developer@chorus:01M84AFG91PKPGRF72X67GDWMC/*^/1/decision.json"
# What Python alone would make of the grammar, without its limits and its rules for paths.
ADDRESS_RE = re.compile(
    r"ucxl://([A-Za-z0-9_-]+):([A-Za-z0-9_-]+)@([A-Za-z0-9_-]+):([A-Za-z0-9_-]+)"
    r"/(\*\^|\*~[0-9]*|~~[0-9]+|\^\^[0-9]+)/([A-Za-z0-9_\-/.]*)"
)


async def hub_call() -> list[Comparison]:
    """A service of a sibling called through the hub, beside the same bytes over a raw socket.

    The hub's clients run on uvloop. The peer is asyncio's own loop, as most programs have it; what uvloop
    alone makes of it stands beside that.
    """
    payload = b"x" * PAYLOAD_BYTES
    ours = list[float]()
    peers: dict[str, list[float]] = {"asyncio": [], "uvloop": []}
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        async with (
            running(*module("stand_ins", "core", "")) as line,
            running(*module("stand_ins", "service", line.split()[0])),
            running(*module("raw", "serve", "asyncio", f"{folder}/asyncio")),
            running(*module("raw", "serve", "uvloop", f"{folder}/uvloop")),
            await Hub.connect(line.split()[0], "bench") as hub,
        ):
            for _ in range(ROUNDS):
                ours += await measured(CALLS, lambda _: hub.call_service("echo", "echo", None, payload))
                for loop, taken in peers.items():
                    ping = module("raw", "ping", loop, f"{folder}/{loop}", str(CALLS), str(PAYLOAD_BYTES))
                    taken += await numbers(*ping)
    what = f"hub call between two processes, {PAYLOAD_BYTES} B"
    return [
        Comparison(what, figures("chorus", ours), figures(f"raw Unix socket, {loop}", taken), 2.0)
        for loop, taken in peers.items()
    ]


async def pubsub() -> list[Comparison]:
    """Python, hub, core, mesh, core, hub, Python and back, beside go-libp2p with one node in each process."""
    async with two_cores() as (near, far), running(*module("stand_ins", "gossip", far)):
        ours = await _round_trips(near)
    peers = go_peers()
    async with running(str(peers / "gossip"), "echo") as address:
        peer = await numbers(str(peers / "gossip"), "ping", address, str(ROUND_TRIPS), str(PAYLOAD_BYTES))
    what = f"pubsub round trip, {PAYLOAD_BYTES} B, signed"
    return [Comparison(what, figures("chorus", ours), figures("go-libp2p, no hub", peer), 1.0)]


async def _round_trips(hub_path: str) -> list[float]:
    async with await Hub.connect(hub_path, "bench") as hub, hub.subscribe(TOPIC) as messages:
        await peer_of(hub)
        await asyncio.sleep(SETTLE_S)

        async def once(number: int) -> None:
            await hub.publish(TOPIC, TYPE, message(n=number))
            while (await messages.get()).data["details"]["n"] != number:
                pass

        return await measured(ROUND_TRIPS, once)


def message(**details: int) -> dict[str, Any]:
    """Data of a message on TOPIC. The envelope's own fields count too: all in all about PAYLOAD_BYTES."""
    return {"status": "healthy", "details": {**details, "pad": "x" * (PAYLOAD_BYTES - 200)}}


def ucxl() -> list[Comparison]:
    """A UCXL address read from Python (wanted: 3 µs), beside a regular expression."""
    ours, peer = list[float](), list[float]()
    for _ in range(ROUNDS):
        ours += _parses(Ucxl.parse)
        peer += _parses(_by_expression)
    return [Comparison("UCXL parse", figures("chorus", ours), figures("regular expression", peer), 1.0)]


def _by_expression(text: str) -> tuple[str, ...]:
    found = ADDRESS_RE.fullmatch(text)
    assert found is not None
    return found.groups()


def _parses(parse: Callable[[str], object]) -> list[float]:
    taken = []
    for _ in range(CALLS // ROUNDS):
        started = time.perf_counter_ns()
        for _ in range(PARSES):
            parse(ADDRESS)
        taken.append((time.perf_counter_ns() - started) / 1000 / PARSES)
    return taken

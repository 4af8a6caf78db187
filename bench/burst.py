"""Bench of pubsub one way: how many messages a second arrive when none may be lost."""

from __future__ import annotations

import asyncio
import time

from bench.figures import Amounts
from bench.local import PAYLOAD_BYTES, SETTLE_S, message
from bench.processes import go_peers, module, numbers, peer_of, running, two_cores
from bench.stand_ins import TOPIC, TYPE
from chorus.hub import Hub, Subscription

# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS = 5
MESSAGES = 10_000
WARM_UP = 1024
# A publication is answered when the network has taken the message. As many wait for that at once: more bring
# nothing, as the core takes one after the other.
AT_ONCE = 64
ANSWER_TIMEOUT_S = 60


async def burst() -> list[Amounts]:
    """Python, hub, core, mesh, core, hub, Python, beside go-libp2p with one node in each process."""
    gossip = str(go_peers() / "gossip")
    ours, peer = list[float](), list[float]()
    async with (
        two_cores() as (near, far),
        running(*module("stand_ins", "count", far)),
        running(gossip, "count", str(MESSAGES)) as address,
        await Hub.connect(near, "bench") as hub,
        hub.subscribe(TOPIC) as answers,
    ):
        await peer_of(hub)
        await asyncio.sleep(SETTLE_S)
        await _seconds(hub, answers, WARM_UP)
        for _ in range(ROUNDS):
            ours.append(MESSAGES / await _seconds(hub, answers, MESSAGES))
            peer += await numbers(gossip, "burst", address, str(MESSAGES), str(PAYLOAD_BYTES))
    what = f"pubsub one way, {PAYLOAD_BYTES} B, signed, none lost of {MESSAGES:,}"
    peer_name = "go-libp2p, no hub"
    return [Amounts(what, "messages/s", ours, 2, at_least=True, peer_name=peer_name, peer=peer)]


async def _seconds(hub: Hub, answers: Subscription, count: int) -> float:
    """From the first message's publication to the answer that all are there."""
    numbers = iter(range(count))

    async def publish() -> None:
        for number in numbers:
            await hub.publish(TOPIC, TYPE, message(n=number, of=count))

    started = time.perf_counter()
    await asyncio.gather(*(publish() for _ in range(AT_ONCE)))
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        arrived = (await answers.get()).data["details"]["arrived"]
    taken = time.perf_counter() - started
    if arrived != count:
        raise RuntimeError(f"of {count:,} messages of a burst {count - arrived:,} were lost")
    return taken

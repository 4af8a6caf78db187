"""Bench of the log's throughput: entries that many proposers have committed, beside puts of as many."""

from __future__ import annotations

from typing import Any, Final

from bench.agents import hub_socket, in_state
from bench.etcd import Etcd
from bench.figures import Amounts
from bench.local import PAYLOAD_BYTES
from bench.processes import go_peers, module, numbers
from bench.usage import Processor, cores

PROPOSERS: Final = 64
# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS: Final = 5
ROUND_S: Final = 5
TARGET: Final = 2.0


async def entries(agents: list[dict[str, Any]]) -> list[Amounts]:
    """Entries a second through a follower, applied to its table, beside puts through a follower of etcd.

    The proposers of either side are one process; the note says how much of a core ours takes.
    """
    ours, peer, proposers = list[float](), list[float](), list[float]()
    taken = list[dict[str, float]]()
    putters = str(go_peers() / "etcd")
    socket = str(hub_socket(in_state(agents, "follower")))
    async with Etcd() as cluster:
        url = await cluster.follower()
        for _ in range(ROUNDS):
            processor = Processor(*(agent["pid"] for agent in agents))
            rate, share = await numbers(*module("proposers", socket, str(ROUND_S), str(PROPOSERS)))
            taken.append(processor.shares())
            ours.append(rate)
            proposers.append(share)
            peer += await numbers(putters, "rate", url, str(ROUND_S), str(PAYLOAD_BYTES), str(PROPOSERS))
    note = f"the proposers took {sum(proposers) / ROUNDS:.2f} cores; the agents {cores(taken)}"
    what = f"entries of {PAYLOAD_BYTES} B, {PROPOSERS} proposers, through a follower"
    name = "etcd, gRPC from Go"
    return [Amounts(what, "entries/s", ours, TARGET, at_least=True, peer_name=name, peer=peer, note=note)]

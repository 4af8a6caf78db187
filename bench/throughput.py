"""Bench of small tasks in sandboxes: so many a second, beside Docker's own containers."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.agents import Agent, ask
from bench.figures import Amounts
from bench.mesh import IMAGE
from bench.submitter import Submitter
from bench.usage import Processor, cores

# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS: Final = 5
ROUND_S: Final = 10.0
TARGET: Final = 0.8


async def throughput(agents: list[Agent]) -> list[Amounts]:
    """`true` in a sandbox of its own, beside `docker run --rm` of the image, as many of them at once.

    Wanted is a rate close to Docker's own limit, for which a ratio of 0.8 is taken here.
    """
    at_once = sum(int(item["tasks"]["max"]) for item in ask(agents[0], "/api/v1/agents")["items"])
    ours, peer, taken = list[float](), list[float](), list[dict[str, float]]()
    # Twice as many as run, so that the next one is there when one has ended.
    async with Submitter(agents, {"commands": ["true"]}, 2 * at_once) as submitter:
        for _ in range(ROUNDS):
            processor = Processor(*(agent["pid"] for agent in agents))
            ours.append(await submitter.rate(ROUND_S))
            taken.append(processor.shares())
            peer.append(_docker_runs(at_once))
    what = f"task `true`, 3 agents, {at_once} at once"
    name = f"docker run --rm, {at_once} at once"
    note = f"the agents took {cores(taken)}"
    return [Amounts(what, "tasks/s", ours, TARGET, at_least=True, peer_name=name, peer=peer, note=note)]


def _docker_runs(at_once: int) -> float:
    """Containers that ran to their end in a second."""
    began = time.monotonic()

    def run_on() -> int:
        count = 0
        while time.monotonic() < began + ROUND_S:
            subprocess.run(["docker", "run", "--rm", IMAGE, "true"], check=True)
            count += 1
        return count

    with ThreadPoolExecutor(at_once) as threads:
        counts = [threads.submit(run_on) for _ in range(at_once)]
        return sum(count.result() for count in counts) / (time.monotonic() - began)

"""Benches of the log: an entry appended and an entry read, after few and after many came before."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

from bench.figures import Comparison, Figures, figures
from bench.stand_ins import SECRET
from bench.timing import measured
from chorus.core import Log, Node

SIZES = (100, 10_000, 1_000_000)
APPENDS = 200
READS = 1000
# As many appends wait for one another's batch as the log's queue takes.
AT_ONCE = 1024
# What is appended to a flat file may cost no more for what is in it already; the machine's noise is in this.
GROWTH_MAX = 1.5


async def log() -> list[Comparison]:
    """How the cost grows with the length: each log beside itself when it was a hundredth as long."""
    rng = random.Random(1)
    appended, read = dict[int, Figures](), dict[int, Figures]()
    async with Node(SECRET) as node:
        entries = Log(node.hub)
        for size in SIZES:
            await _fill(entries, size)
            taken = await measured(APPENDS, lambda n: entries.append("bench", {"n": n, "text": "x" * 200}))
            appended[size] = figures(f"after {size:,}", taken)
            taken = await measured(READS, lambda _, size=size: entries.read(rng.randrange(size), 1))  # type: ignore[misc]
            read[size] = figures(f"of {size:,}", taken)
    return [
        Comparison(what, taken_of[many], taken_of[few], GROWTH_MAX)
        for what, taken_of in (("log entry appended, on disk", appended), ("log entry read", read))
        for few, many in pairwise(SIZES)
    ]


async def _fill(entries: Log, size: int) -> None:
    missing = size - await entries.length()
    while missing > 0:
        now = min(missing, AT_ONCE)
        await asyncio.gather(*(entries.append("bench", {"n": n}) for n in range(now)))
        missing -= now

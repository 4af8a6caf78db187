"""Proposes entries through one agent's hub, many at once.

`python -m bench.proposers SOCKET SECONDS PROPOSERS` prints how many were committed in a second, and the
share of a core that this process took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from bench.agents import propose
from chorus.hub import Hub


async def main(socket: str, seconds: str, proposers: str) -> None:
    """Each proposer waits for its entry before the next."""
    async with await Hub.connect(socket, "bench") as hub:
        began = time.monotonic()
        used = time.process_time()

        async def proposer() -> int:
            count = 0
            while time.monotonic() < began + int(seconds):
                await propose(hub)
                count += 1
            return count

        counts = await asyncio.gather(*(proposer() for _ in range(int(proposers))))
        passed = time.monotonic() - began
        print(json.dumps([sum(counts) / passed, (time.process_time() - used) / passed]))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))

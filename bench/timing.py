"""The time of each of many runs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

WARM_UPS = 50


async def measured(count: int, once: Callable[[int], Awaitable[object]]) -> list[float]:
    """Microseconds of each of `count` runs, after some that do not count."""
    taken = []
    for number in range(-WARM_UPS, count):
        started = time.perf_counter_ns()
        await once(number)
        if number >= 0:
            taken.append((time.perf_counter_ns() - started) / 1000)
    return taken

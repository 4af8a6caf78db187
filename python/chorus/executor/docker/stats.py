"""What Docker's stats stream says of a container, on cgroup v1 and v2. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus.executor.backend import Sample

# Pages of files that the kernel may drop at any time: in `usage`, but nobody's need. v1 has both names; the
# first counts the groups below as well, as `usage` does.
_DROPPABLE = ("total_inactive_file", "inactive_file")


def read_sample(raw: Mapping[str, Any]) -> Sample | None:
    """One line of the stats stream: cores in use, and bytes of memory as `docker stats` counts them.

    None for the first line, which has nothing to compare with, and for the last of a container that ended.
    """
    try:
        cpu, before = raw["cpu_stats"], raw["precpu_stats"]
        system = cpu["system_cpu_usage"] - before["system_cpu_usage"]
        used = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
        # v2 lists no single CPUs, and older daemons do not count them.
        cores = cpu.get("online_cpus") or len(cpu["cpu_usage"].get("percpu_usage") or ()) or 1
        if system <= 0:
            return None
        memory = int(raw["memory_stats"]["usage"])
        detail = raw["memory_stats"].get("stats") or {}
        droppable = next((int(detail[name]) for name in _DROPPABLE if name in detail), 0)
        return Sample(max(0.0, used / system * cores), memory - droppable if droppable < memory else memory)
    except (KeyError, TypeError, ValueError):
        return None

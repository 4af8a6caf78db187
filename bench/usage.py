"""What Linux says of an agent's processes: which there are, their memory and their processor time."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

KIB: Final = 1024
MB: Final = 1e6
# Programs that take less of a core are not named.
NAMED_FROM: Final = 0.05
# Stands among the programs for what nobody takes.
IDLE: Final = "idle"
# Of the fields of /proc/PID/stat after the name: utime, stime, and those of children that have ended.
_TIMES: Final = slice(11, 15)


@dataclass(frozen=True, slots=True)
class Memory:
    """One process, in 10^6 bytes. `pss` counts pages that several share in equal parts; `own` is what the
    process has written to and holds alone.
    """

    name: str
    pss: float
    own: float


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    # One that ends meanwhile has no children any more.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def memory(pid: int) -> Memory:
    """What a process holds now."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, kib, _ = line.split()
        found[key] = int(kib) * KIB / MB
    return Memory(_name(pid), found["Pss:"], found["Private_Dirty:"])


def processor_s(pids: Iterable[int]) -> dict[str, float]:
    """Seconds that processes and all below them have used, those that have ended among them, by program."""
    used: defaultdict[str, float] = defaultdict(float)
    for one in (below for pid in pids for below in tree(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            used[_name(one)] += sum(map(int, fields[_TIMES])) / os.sysconf("SC_CLK_TCK")
    return used


class Processor:
    """What the programs below some processes take of the processor from here on, and what nobody takes."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._before = self._used_s()
        self._began = time.monotonic()

    def shares(self) -> dict[str, float]:
        """How many cores each program took since then, all its processes together, and how many were IDLE."""
        passed_s = time.monotonic() - self._began
        used = self._used_s()
        return {name: max(0.0, used[name] - self._before.get(name, 0.0)) / passed_s for name in used}

    def _used_s(self) -> dict[str, float]:
        user_to_idle = Path("/proc/stat").read_text().split(maxsplit=5)
        return {**processor_s(self._pids), IDLE: int(user_to_idle[4]) / os.sysconf("SC_CLK_TCK")}


def cores(rounds: Sequence[Mapping[str, float]]) -> str:
    """The mean of such shares in words, the largest first."""
    mean = {name: sum(shares.get(name, 0.0) for shares in rounds) / len(rounds) for name in rounds[0]}
    idle = mean.pop(IDLE)
    largest = sorted(mean.items(), key=lambda item: -item[1])
    named = [f"{name} {share:.2f}" for name, share in largest if share >= NAMED_FROM]
    took = f"{sum(mean.values()):.2f} of {os.cpu_count()} cores ({', '.join(named)})"
    return f"{took}, {idle:.2f} were idle"


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    if "chorus.agent.leash" in words:
        return "supervisord"
    for before, word in pairwise(words):
        if before == "-m" and word.startswith("chorus."):
            return word.removeprefix("chorus.")
        if word.endswith("listener.py"):
            return "listener"
    return "agent"

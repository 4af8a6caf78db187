"""What Linux says of an agent's processes: which there are, their memory and their processor time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

KIB: Final = 1024
MB: Final = 1e6
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


def processor_s(pid: int) -> float:
    """Seconds that a process and all below it have used, those that have ended among them."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[_TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


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

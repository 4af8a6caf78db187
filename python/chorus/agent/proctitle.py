"""Gives this process its public name: `argv[0]` and the kernel's short name become `chorus-agent`.

So `kill -HUP $(pidof chorus-agent)` finds the parent, although it is a Python interpreter that was started
under some other name. Starting the interpreter anew under a false `argv[0]` would also do, but Python finds
its environment (a virtualenv's packages) by that very name.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

NAME = b"chorus-agent"
_PR_SET_NAME = 15
# Fields of /proc/self/stat, counted from the one after the parenthesised name (proc(5): 48 and 49).
_ARG_START = 48 - 3
_ARG_END = 49 - 3


def claim_name() -> bool:
    """Overwrites what `/proc/PID/cmdline` shows; False where the kernel does not say where that lies."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME, 0, 0, 0)
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        fields = stat.rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return False
    room = end - start
    if start == 0 or room <= len(NAME):
        return False
    # Python copied its arguments long ago; this region is only read by others, through /proc.
    ctypes.memmove(start, NAME.ljust(room, b"\0"), room)
    return True

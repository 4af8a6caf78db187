"""What others see of this process as its command line, in `/proc/PID/cmdline`, and as its short name.

The parent calls itself `chorus-agent`, so that `kill -HUP $(pidof chorus-agent)` finds it, although it is a
Python interpreter that was started under some other name. Starting the interpreter anew under a false
`argv[0]` would also do, but Python finds its environment (a virtualenv's packages) by that very name. A
program that was forked shows the command that would have started it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

NAME = "chorus-agent"
_PR_SET_NAME = 15
# Fields of /proc/self/stat, counted from the one after the parenthesised name (proc(5): 48 and 49).
_ARG_START = 48 - 3
_ARG_END = 49 - 3


def claim_name() -> bool:
    """Makes `argv[0]` and the kernel's short name `chorus-agent`; False where `show` is."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    return show([NAME])


def show(command: Sequence[str]) -> bool:
    """Overwrites what others see as the command line; False where the kernel does not say where that lies, or
    it is too short for this one.
    """
    words = "\0".join(command).encode()
    try:
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return False
    room = end - start
    if start == 0 or room <= len(words):
        return False
    # Python copied its arguments long ago; this region is only read by others, through /proc.
    ctypes.memmove(start, words.ljust(room, b"\0"), room)
    return True

"""The kernel's death signal: a process that ends with the one that forked it.

A module of its own, as supervisord's process needs this and no event loop.
"""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent_process() -> None:
    """Asks the kernel to kill this process when the one that forked it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

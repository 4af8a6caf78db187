"""The kernel's death signal: a process that ends with the one that forked it.

A module of its own, as it is needed where no event loop is loaded: in supervisord's process, in the child
that reads archives, and between fork and exec.
"""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent_process(number: signal.Signals = signal.SIGKILL) -> None:
    """Asks the kernel to send this process a signal when the one that forked it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)

"""Ends this process at once when its parent is gone, and shows the parent that its event loop runs.

It watches the FIFO that the parent keeps open. A kernel death signal alone is not enough: a program's direct
parent is supervisord, and no program may outlive the agent's own parent either, whichever of the two dies
first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

from chorus.process import exit_codes

# How a sign of life begins; it comes among the lines about programs that the parent reads.
SIGN = "PROCESS_ALIVE"
# A tenth of what the parent waits.
SIGN_EVERY_S = 3.0


def watch(fifo: Path) -> None:
    """Starts the watch. Without a writer at the other end the process ends before this returns."""
    try:
        handle = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        os._exit(exit_codes.PARENT_GONE)
    try:
        if os.read(handle, 1) == b"":
            os._exit(exit_codes.PARENT_GONE)
    except BlockingIOError:
        pass  # a writer is there and says nothing, which is all it ever does
    os.set_blocking(handle, True)
    threading.Thread(target=_wait_for_end, args=(handle,), name="alive", daemon=True).start()


def _wait_for_end(handle: int) -> None:
    # A thread of its own, so that neither a busy nor a stuck event loop delays the end.
    while os.read(handle, 1) != b"":
        pass
    os._exit(exit_codes.PARENT_GONE)


async def give_signs(fifo: Path, name: str, every_s: float = SIGN_EVERY_S) -> None:
    """Tells the parent again and again that this event loop runs, until it is cancelled."""
    try:
        handle = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # the parent is gone, and this process ends with it
    # One write below PIPE_BUF: lines of several processes never mix.
    line = f"{SIGN} processname:{name} pid:{os.getpid()}\n".encode()
    try:
        while True:
            # Full while the parent is suspended; what ends with the parent ends by itself.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(handle, line)
            await asyncio.sleep(every_s)
    finally:
        os.close(handle)

"""How `run` ends early: by a signal, as an exception, and however it ends, with its task cancelled.

What no handler sees (SIGKILL, a crash) is seen by a process beside it, which then cancels in its place.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Self

# A shell, a terminal or a service manager ends a command with these.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Shells report a command that a signal ended as this and the signal's number.
SIGNAL_EXIT_BASE: Final = 128
PIPE_CLOSED: Final = SIGNAL_EXIT_BASE + signal.SIGPIPE
# How long the process beside tries to cancel: agents restart, leaders are elected.
CANCEL_TRIES_S: Final = 60.0
CANCEL_PAUSE_S: Final = 1.0
# And how long the command waits for it before it ends.
CANCEL_WAIT_S: Final = 10.0
_OVER: Final = b"over"
_DONE: Final = b"y"


class Signalled(BaseException):
    """A signal asks the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code that says so."""
        return SIGNAL_EXIT_BASE + self.number


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raises Signalled for each signal that comes meanwhile; those that are ignored (nohup) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, raise_it) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Canceller:
    """A process beside this one that calls `cancel` when asked to, and when this one ends without `over`.

    `cancel` says whether it is done; until then it is called again. The process has a session of its own, so
    that a signal to the terminal's or the shell's group leaves it alone, and holds none of the open files.
    """

    def __init__(self, cancel: Callable[[], bool]) -> None:
        self._here, there = socket.socketpair()
        # Whether it has been told already what to do.
        self.told = False
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _wait_and_cancel(there.detach(), cancel)
            finally:
                os._exit(0)
        there.close()

    def over(self) -> None:
        """There is nothing to cancel (any more)."""
        if not self.told:
            self.told = True
            self._here.send(_OVER)
            os.waitpid(self._pid, 0)

    def cancel(self) -> bool:
        """Cancels; whether that is done after CANCEL_WAIT_S. It goes on when this process does not wait."""
        self.told = True
        self._here.shutdown(socket.SHUT_WR)
        self._here.settimeout(CANCEL_WAIT_S)
        try:
            return self._here.recv(1) == _DONE
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._here.close()


def _wait_and_cancel(parent: int, cancel: Callable[[], bool]) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    # Whoever reads what the command prints waits for the end of the last process that could write there.
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    os.dup2(parent, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    if os.read(3, len(_OVER)) == _OVER:
        return
    until = time.monotonic() + CANCEL_TRIES_S
    while not cancel():
        if time.monotonic() > until:
            return
        time.sleep(CANCEL_PAUSE_S)
    os.write(3, _DONE)

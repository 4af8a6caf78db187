"""Tells which processes live and do not answer: those whose event loop has given no sign for too long. Pure.

Time is counted in the parent's own looks, each of which counts for no more than it should have taken. While
the parent or the machine is suspended, or starved of processor time, no process is silent. Killing and
counting are left to others.
"""

from __future__ import annotations

from dataclasses import dataclass

# Each process gives a sign every three seconds. A loop that is late by this much serves nobody any more; a
# slow disk, or a machine with far too many processes, makes it late by seconds.
SILENT_MAX_S = 30.0
# Before its first sign a process loads its modules, on a machine where everything may be starting.
START_MAX_S = 180.0
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a process may be silent, and how often the parent looks."""

    silent_max_s: float = SILENT_MAX_S
    start_max_s: float = START_MAX_S
    look_every_s: float = LOOK_EVERY_S


@dataclass(slots=True)
class _Watched:
    pid: int
    answered: bool = False
    slack_s: float = 0.0
    silent_s: float = 0.0


class Watchdog:
    """Takes signs of life; `now` is in seconds of a clock that never goes back."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._watched: dict[str, _Watched] = {}
        self._looked: float | None = None

    def started(self, name: str, pid: int) -> None:
        """A process lives; its first sign may take a while."""
        if name not in self._watched or self._watched[name].pid != pid:
            self._watched[name] = _Watched(pid)

    def answered(self, name: str, pid: int, slack_s: float = 0.0) -> None:
        """A sign of a process's event loop; `slack_s` is given to one whose signs are rare."""
        self._watched[name] = _Watched(pid, answered=True, slack_s=slack_s)

    def ended(self, name: str) -> None:
        """A process is gone, and nothing is expected of it."""
        self._watched.pop(name, None)

    def clear(self) -> None:
        """All processes are gone."""
        self._watched.clear()

    def look(self, now: float) -> list[tuple[str, int]]:
        """Names and pids of those that do not answer. Each is named again after as long a silence."""
        every = self.patience.look_every_s
        passed = 0.0 if self._looked is None else min(now - self._looked, every)
        self._looked = now
        silent = []
        for name, watched in self._watched.items():
            watched.silent_s += passed
            limit = self.patience.silent_max_s if watched.answered else self.patience.start_max_s
            if watched.silent_s >= limit + watched.slack_s:
                watched.silent_s = 0.0
                silent.append((name, watched.pid))
        return silent

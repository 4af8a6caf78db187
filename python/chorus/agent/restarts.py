"""Counts the programs that end when they should not, and starts those again that supervisord has given up.

supervisord stops trying after a few quick failures; an agent must not be left with a part of it dead in
silence. Who does not answer is found by the watchdog.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from chorus.process.crashes import Crashes, note_unresponsive, save
from chorus.process.logs import Logger

RESTART_FIRST_S = 1.0
RESTART_MAX_S = 30.0
# Running this long, a program is well again and its next failure starts with short waits.
WELL_AFTER_S = 60.0


class Restarts:
    """Hears supervisord's events. `start` starts a program and says why not, or nothing."""

    def __init__(self, path: Path, log: Logger, start: Callable[[str], str]) -> None:
        self._path = path
        self._log = log
        self._start = start
        self._records: dict[str, Crashes] = {}
        self._waits: dict[str, float] = {}
        self._running_since: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # Those that are about to be killed because they did not answer.
        self._unresponsive: set[str] = set()
        self._stopped = False

    def on_event(self, event: str, fields: dict[str, str]) -> None:
        """One event of supervisord about a program."""
        name = fields.get("processname", "")
        if not name or self._stopped:
            return
        if event == "PROCESS_STATE_RUNNING":
            self._running_since[name] = time.monotonic()
            self._change(name, state="running", next_start_ms=None)
        elif event in ("PROCESS_STATE_EXITED", "PROCESS_STATE_BACKOFF"):
            self._count(name, pid=fields.get("pid", ""))
        elif event == "PROCESS_STATE_FATAL":
            self._plan_start(name)

    def unresponsive(self, name: str) -> None:
        """Before a program is killed because it does not answer; its next life finds a note of that."""
        self._unresponsive.add(name)
        # A full disk is no reason to leave it hanging.
        with contextlib.suppress(OSError):
            note_unresponsive(self._path.parent, name)

    def unresponsive_supervisord(self, name: str) -> None:
        """Counts the program that keeps all others; nobody tells of its end."""
        self._records[name] = dataclasses.replace(
            self._records.get(name, Crashes()).crashed(_now_ms(), unresponsive=True), state="running"
        )
        save(self._path, self._records)

    def stop(self) -> None:
        """Starts nothing any more."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()

    def new_generation(self) -> None:
        """All programs are started anew; what was planned for the old ones is void."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._unresponsive.clear()

    def _count(self, name: str, pid: str) -> None:
        since = self._running_since.pop(name, None)
        if since is not None and time.monotonic() - since > WELL_AFTER_S:
            self._waits.pop(name, None)
        unresponsive = name in self._unresponsive
        self._unresponsive.discard(name)
        record = self._records.get(name, Crashes()).crashed(_now_ms(), unresponsive=unresponsive)
        self._records[name] = record
        save(self._path, self._records)
        self._log.warning(f"{name} ended and is started again", program=name, pid=pid, crashes=record.count)

    def _plan_start(self, name: str) -> None:
        wait = self._waits.get(name, RESTART_FIRST_S)
        self._waits[name] = min(wait * 2, RESTART_MAX_S)
        self._records.setdefault(name, Crashes())
        self._change(name, state="fatal", next_start_ms=_now_ms() + int(wait * 1000))
        self._log.error(f"{name} fails again and again; next start in {wait:g} s", program=name)
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(wait, self._restart, name)

    def _restart(self, name: str) -> None:
        self._timers.pop(name, None)
        work = asyncio.get_running_loop().run_in_executor(None, self._start, name)
        work.add_done_callback(lambda done: self._restarted(name, done))

    def _restarted(self, name: str, done: asyncio.Future[str]) -> None:
        if self._stopped or done.cancelled():
            return
        if why := done.result():
            self._log.warning(f"{name} could not be started: {why}", program=name)
            self._plan_start(name)

    def _change(self, name: str, **changes: object) -> None:
        if name in self._records:
            self._records[name] = dataclasses.replace(self._records[name], **changes)  # type: ignore[arg-type]
            save(self._path, self._records)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

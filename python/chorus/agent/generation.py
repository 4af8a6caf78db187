"""One generation of processes: supervisord, its programs, and the FIFO that they live by.

When supervisord ends, its generation ends: the FIFO closes, what is left is reaped or killed, a new one may
start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from chorus.agent.programs import Program, environment, module_of, supervisord_conf
from chorus.config import Paths
from chorus.config.files import write_private
from chorus.config.variables import SECRETS

# Processes end by themselves when the FIFO closes; those that cannot are killed after this.
LEFTOVER_GRACE_S = 0.5
LEFTOVER_POLL_S = 0.02
PASSWORD_BYTES = 24
# supervisord has bound its socket long before these are used up.
WAKE_ATTEMPTS = 250
WAKE_POLL_S = 0.02


class Generation:
    """Starts supervisord and hears of its programs' events."""

    def __init__(self, number: int, paths: Paths, programs: Sequence[Program]) -> None:
        self.number = number
        self.password = secrets.token_hex(PASSWORD_BYTES)
        self.pid = 0
        self._paths = paths
        self._programs = programs
        self._alive = paths.alive(number)
        self._events = paths.run / f"events.{number}"
        self._alive_end = -1
        self._events_end = -1
        self._rest = b""

    def start(self, environ: Mapping[str, str], stdout: int, stderr: int) -> None:
        """Starts supervisord in a session of its own, out of reach of the terminal's signals."""
        for fifo in (self._alive, self._events):
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo, 0o600)
        # Read-write, so that opening does not wait for the other side.
        self._alive_end = os.open(self._alive, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._events_end = os.open(self._events, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        conf = supervisord_conf(
            self._programs, self._paths, self._events, self.password, as_root=os.getuid() == 0
        )
        write_private(self._paths.supervisord_conf, conf)
        command = [
            sys.executable,
            "-P",
            "-m",
            "chorus.agent.leash",
            str(os.getpid()),
            str(self._paths.supervisord_conf),
            *filter(None, (module_of(program.command) for program in self._programs)),
        ]
        # supervisord hands its own environment on: no secrets in it, which processes read in settings.json.
        kept = {name: value for name, value in environ.items() if name not in SECRETS}
        handled = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE}
        self.pid = os.posix_spawn(
            sys.executable,
            command,
            {**kept, **environment(self._paths, self._alive, self._events)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsid=True,
            setsigdef=handled,
            setsigmask=(),
        )

    def listen(
        self, loop: asyncio.AbstractEventLoop, on_event: Callable[[str, dict[str, str]], None]
    ) -> None:
        """Calls `on_event` with each event's name and fields."""
        loop.add_reader(self._events_end, self._read_events, on_event)

    async def wake(self) -> None:
        """Has supervisord start its programs now: it would wait a second for a visitor first."""
        for _ in range(WAKE_ATTEMPTS):
            try:
                _, writer = await asyncio.open_unix_connection(self._paths.supervisor_socket)
            except OSError:
                await asyncio.sleep(WAKE_POLL_S)
            else:
                writer.close()
                return

    def signal(self, number: signal.Signals) -> None:
        """Sends supervisord a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has(self, pid: int) -> bool:
        """Whether supervisord has a living program of that pid."""
        return _parent_of(pid) == self.pid

    async def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """After supervisord is gone: closes the FIFO and waits until nothing of this generation is left."""
        loop.remove_reader(self._events_end)
        for handle, path in ((self._alive_end, self._alive), (self._events_end, self._events)):
            # Gone by name first: a process that is only starting must not open it again.
            path.unlink(missing_ok=True)
            os.close(handle)
        deadline = loop.time() + LEFTOVER_GRACE_S
        while left := children():
            if loop.time() > deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(LEFTOVER_POLL_S)

    def _read_events(self, on_event: Callable[[str, dict[str, str]], None]) -> None:
        with contextlib.suppress(BlockingIOError):
            self._rest += os.read(self._events_end, 64 * 1024)
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            name, _, fields = line.decode("utf-8", "replace").partition(" ")
            on_event(name, dict(field.split(":", 1) for field in fields.split() if ":" in field))


def children() -> list[int]:
    """The living children of this process: as it is a subreaper, also those whose parents ended."""
    me = os.getpid()
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _parent_of(pid) == me]


def _parent_of(pid: int) -> int | None:
    """The parent of a living process."""
    with contextlib.suppress(OSError, ValueError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        state, parent = stat.rpartition(")")[2].split()[:2]
        return None if state == "Z" else int(parent)
    return None

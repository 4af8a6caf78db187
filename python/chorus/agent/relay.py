"""The one log stream: what the processes and supervisord write comes through here to the agent's stderr.

Lines in the agent's own form pass as they are but for secrets, which are cut out here too: a program can
write such lines by itself. supervisord's and stray ones (an interpreter's traceback) are given that form.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO

from chorus.process.logs import Logger, json_without_secrets

if TYPE_CHECKING:
    from chorus.core import Redactor, Scanner

READ_BYTES = 64 * 1024
# Lines kept while nobody reads our stderr (a stopped terminal); more are dropped and counted: logs never stop
# work.
QUEUE_CHUNKS = 1_024
# A line that never ends is passed on in pieces of about this size.
LINE_MAX_BYTES = 64 * 1024

_SUPERVISORD = re.compile(rb"\S+ \S+ (CRIT|ERRO|WARN|INFO|DEBG|TRAC|BLAT) (.*)")
_TEXT_LINE = re.compile(rb"\d\d:\d\d:\d\d\.\d{3} (?:debug|info|warning|error)\b")


class Writer:
    """Writes to the agent's stderr from a thread of its own, dropping what cannot be kept."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUE_CHUNKS)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
        self._thread.start()

    def write(self, lines: bytes) -> None:
        """Hands whole lines over; never waits."""
        try:
            self._queue.put_nowait(lines)
        except queue.Full:
            self._dropped += lines.count(b"\n")

    def close(self, timeout_s: float) -> None:
        """Writes what is left, for so long at most."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            try:
                self._out.write(lines)
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    self._out.write(
                        f'{{"level": "warning", "event": "{dropped} log lines dropped"}}\n'.encode()
                    )
                self._out.flush()
            except (OSError, ValueError):
                pass  # nobody reads; the agent goes on


class Relay:
    """A pipe whose write end processes inherit, and whose lines come out at `writer`."""

    def __init__(self, writer: Writer, log: Logger, scanner: Scanner, *, supervisord: bool) -> None:
        self._writer = writer
        self._log = log
        self._scanner = scanner
        self._supervisord = supervisord
        self._rest = b""
        # While a line goes on that is longer than any of ours: a secret may stand where its pieces meet.
        self._long: Redactor | None = None
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to read."""
        loop.add_reader(self.read_end, self.read)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reads what is left and ends."""
        os.close(self.write_end)
        self.read()
        loop.remove_reader(self.read_end)
        os.close(self.read_end)

    def read(self) -> None:
        """Takes what is there."""
        while True:
            try:
                data = os.read(self.read_end, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self.take(data)

    def take(self, data: bytes) -> None:
        """Cuts bytes into lines and passes them on."""
        *lines, rest = (self._rest + data).split(b"\n")
        ours = [told for line in lines if (told := self._tell(line)) is not None]
        if ours:
            self._writer.write(b"".join(ours))
        if len(rest) > LINE_MAX_BYTES:
            self._tell_piece(rest)
            rest = b""
        self._rest = rest

    def _tell(self, line: bytes) -> bytes | None:
        """Passes a line on: gives it back when it is in our own form, or else says it in the log."""
        if self._long is not None:
            self._stray(self._long.push(line) + self._long.finish())
            self._long = None
        elif self._supervisord:
            self._retell(line)
        elif (json := json_without_secrets(line, self._scanner)) is not None:
            return json + b"\n"
        elif _TEXT_LINE.match(line):
            return self._scanner.redact(line) + b"\n"
        else:
            self._stray(line)
        return None

    def _tell_piece(self, piece: bytes) -> None:
        from chorus.core import Redactor

        if self._long is None:
            self._long = Redactor(self._scanner)
        self._stray(self._long.push(piece))

    def _stray(self, line: bytes) -> None:
        if line.strip():
            self._log.warning(line.decode("utf-8", "replace").rstrip(), source="stderr of a process")

    def _retell(self, line: bytes) -> None:
        match = _SUPERVISORD.fullmatch(line)
        text = (match[2] if match else line).decode("utf-8", "replace")
        level = match[1] if match else b"WARN"
        if not text.strip():
            return
        if level in (b"CRIT", b"ERRO"):
            self._log.error(text)
        elif level == b"WARN":
            self._log.warning(text)
        else:
            # Which processes start and end is told by the processes themselves and by the parent.
            self._log.debug(text)


def stderr_writer() -> Writer:
    """The writer to this process's stderr."""
    return Writer(sys.stderr.buffer)

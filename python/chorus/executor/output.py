"""What a task writes, on its way to the journal: secrets cut, bounded on disk, and never held up beyond
that.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from chorus.executor.backend import Stream
from chorus.executor.journal import Journal
from chorus.executor.redaction import StreamRedactor

# Kept per attempt, both streams together.
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
# An event costs about this much beside its text; a task that writes byte by byte must not fill the disk
# with them.
_EVENT_COST_BYTES = 96
_STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


@dataclass(slots=True)
class _State:
    redactor: StreamRedactor
    carry: bytes = b""
    command: int = 0
    cut_bytes: int = 0
    seen_bytes: int = field(default=0)


class OutputGate:
    """The sink of one attempt. Runs on the sandbox's thread, which a slow disk may hold up, and so the
    task.

    Each of the two streams is redacted as one from the first command to the last: a secret that one command
    begins and the next one ends is whole in what is read afterwards.
    """

    def __init__(
        self, journal: Journal, redactor: StreamRedactor, *, bytes_max: int = OUTPUT_BYTES_MAX
    ) -> None:
        self._journal = journal
        self._bytes_max = bytes_max
        self._used = 0
        self._cutting = False
        self._failed: OSError | None = None
        self._lock = threading.Lock()
        self._streams: dict[Stream, _State] = {stream: _State(redactor.again()) for stream in _STREAMS}

    @property
    def failed(self) -> OSError | None:
        """The error of the disk that stopped the writing, if there was one."""
        return self._failed

    def seen(self) -> dict[str, int]:
        """Bytes each stream has carried, kept or not."""
        return {stream: state.seen_bytes for stream, state in self._streams.items()}

    def write(self, stream: Stream, command: int, data: bytes) -> None:
        with self._lock:
            state = self._streams[stream]
            state.command = command
            state.seen_bytes += len(data)
            if self._cutting:
                state.cut_bytes += len(data)
                return
            self._keep(stream, state, state.redactor.push(data))

    def end(self, command: int) -> None:
        """A command's last bytes: what may be a secret's first part is held back, and comes with the next
        command's output, or at the end.
        """
        with self._lock:
            for stream, state in self._streams.items():
                self._let_go(stream, state, state.redactor.settle())

    def finish(self) -> None:
        """The attempt writes no more: says what was cut."""
        with self._lock:
            for stream, state in self._streams.items():
                self._let_go(stream, state, state.redactor.finish())
                if state.cut_bytes:
                    said = f"\n[chorus: {state.cut_bytes} bytes of {stream} were cut here]\n".encode()
                    self._guarded(stream, state.command, said, b"")
                    lost = f"{state.cut_bytes} bytes"
                    self._tell_gap(stream, lost, f"{lost} of {stream} were not kept")

    def _keep(self, stream: Stream, state: _State, data: bytes) -> None:
        if not data:
            return
        room = self._bytes_max - self._used
        if len(data) + _EVENT_COST_BYTES > room:
            kept, cut = data[: max(0, room)], len(data) - max(0, room)
            self._emit(stream, state, kept)
            self._used = self._bytes_max
            self._cutting = True
            state.cut_bytes += cut
            limit = self._bytes_max // (1024 * 1024)
            self._tell_gap(stream, "what follows", f"only {limit} MiB of output are kept")
            return
        self._used += len(data) + _EVENT_COST_BYTES
        self._emit(stream, state, data)

    def _emit(self, stream: Stream, state: _State, data: bytes) -> None:
        whole = state.carry + data
        text, state.carry = _split_text(whole)
        self._guarded(stream, state.command, data, text)

    def _let_go(self, stream: Stream, state: _State, rest: bytes) -> None:
        """Keeps what a redactor held back, and half a character that is not to become whole."""
        if rest and not self._cutting:
            self._keep(stream, state, rest)
        elif rest:
            state.cut_bytes += len(rest)
        if state.carry:
            carry, state.carry = state.carry, b""
            self._guarded(stream, state.command, b"", carry)

    def _tell_gap(self, stream: Stream, lost: str, detail: str) -> None:
        try:
            self._journal.event("gap", {"stream": stream, "lost": lost, "detail": detail})
        except OSError as error:
            self._failed = self._failed or error

    def _guarded(self, stream: Stream, command: int, raw: bytes, shown: bytes | str) -> None:
        if self._failed is not None:
            return
        try:
            self._journal.output(stream, command, raw, shown)
        except OSError as error:
            # A full disk must not stop the task's end from being told; the attempt says so.
            self._failed = error
            self._cutting = True


def _split_text(data: bytes) -> tuple[str | bytes, bytes]:
    """Text when it is UTF-8, with a character that the end cuts off carried over; else the bytes
    themselves.
    """
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(data) - error.start < 4:
            return data[: error.start].decode(), data[error.start :]
        return data, b""

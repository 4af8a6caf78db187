"""The journal of a goal's attempt: `transcript.jsonl`, which the executor alone writes, record by record.

A record has no secrets in it when it is written, and it is in the file before anybody is told so. The disk
has it for certain after `sync`; before, it outlives this process, whose end is the attempt's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from chorus.executor.goal.records import read_record

FILE: Final = "transcript.jsonl"
# More is no run's; it leaves room for the other artifacts.
BYTES_MAX: Final = 128 * 1024 * 1024
PAGE_BYTES: Final = 512 * 1024


class TranscriptFull(Exception):
    """No more records are taken."""


class Transcript:
    """One attempt's. `clean` cuts secrets out of a text, `now` gives the time as records have it."""

    def __init__(self, folder: Path, clean: Callable[[str], str], now: Callable[[], str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._clean = clean
        self._now = now
        self._file = self.path.open("w+b", buffering=0)
        # Where each record ends.
        self._ends: list[int] = [0]
        self._known: dict[tuple[str, str | int], int] = {}
        self.begun = False

    @property
    def last(self) -> int:
        """The number of the newest record; 0 before the first."""
        return len(self._ends) - 1

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Writes a record of this process; returns it as it was written. Raises OSError, TranscriptFull."""
        return self._write({"kind": kind, **fields})

    def append(self, payload: bytes) -> tuple[int, dict[str, Any] | None]:
        """Writes a record of the loop; returns its number, and it as it was written; None for a repeat.

        Raises RecordInvalid, OSError, TranscriptFull.
        """
        said, key = read_record(payload)
        if (known := self._known.get(key)) is not None:
            return known, None
        written = self._write(said)
        self._known[key] = self.last
        self.begun = self.begun or said["kind"] == "reply"
        return self.last, written

    def page(self, first: int, limit_bytes: int = PAGE_BYTES) -> tuple[bytes, int]:
        """Records from number `first` on, at least one if there is one, as a JSON list; the next number."""
        begin = min(max(first, 1), self.last + 1) - 1
        upto = begin
        while upto < self.last and (upto == begin or self._ends[upto + 1] - self._ends[begin] <= limit_bytes):
            upto += 1
        lines = self._read(self._ends[begin], self._ends[upto])
        return b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]", upto + 1

    def record(self, number: int) -> dict[str, Any]:
        """One record."""
        read: dict[str, Any] = orjson.loads(self._read(self._ends[number - 1], self._ends[number]))
        return read

    def sync(self) -> None:
        """What was written is on the disk when this returns. Raises OSError."""
        os.fsync(self._file.fileno())

    def sha256(self) -> str:
        """Of the whole file."""
        digest, place = hashlib.sha256(), 0
        while piece := os.pread(self._file.fileno(), PAGE_BYTES, place):
            digest.update(piece)
            place += len(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """No more is written."""
        self._file.close()

    def cleaned(self, value: Any) -> Any:
        """A JSON value whose texts have no secrets."""
        if isinstance(value, str):
            return self._clean(value)
        if isinstance(value, dict):
            return {self._clean(str(key)): self.cleaned(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.cleaned(item) for item in value]
        return value

    def _write(self, fields: dict[str, Any]) -> dict[str, Any]:
        kind = fields["kind"]
        record = {"n": self.last + 1, "at": self._now(), **self.cleaned(fields), "kind": kind}
        line = orjson.dumps(record) + b"\n"
        # What tells of the end has room always.
        if self._ends[-1] + len(line) > BYTES_MAX and kind != "end":
            raise TranscriptFull(f"the transcript has reached its {BYTES_MAX >> 20} MiB")
        view = memoryview(line)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            # A full disk takes half of a line; what comes after must not be glued to that.
            os.ftruncate(self._file.fileno(), self._ends[-1])
            self._file.seek(self._ends[-1])
            raise
        self._ends.append(self._ends[-1] + len(line))
        return record

    def _read(self, begin: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), end - begin, begin)

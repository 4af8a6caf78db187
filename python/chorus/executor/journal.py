"""The story of one attempt on disk: numbered events as JSON lines, and the raw output. Read while it is
written.

Written by the loop and by the sandbox's thread alike; readers follow the file.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import orjson

from chorus.config.files import sync_folder

EVENTS: Final = "events.jsonl"
RAW: Final = ("stdout", "stderr")
ARTIFACTS: Final = "artifacts.json"
ARTIFACT_FOLDER: Final = "artifacts"
RECORD_FILE: Final = "decision.json"
_READ_BYTES = 256 * 1024


def attempt_folder(tasks: Path, task_id: str, attempt: int) -> Path:
    """Where an attempt's files lie."""
    return tasks / task_id / str(attempt)


def record_aside(tasks: Path, task_id: str, attempt: int | str) -> Path:
    """Where the decision record of an attempt lies once the attempt's folder was removed."""
    return tasks / ".records" / f"{task_id}.{attempt}.json"


class Journal:
    """Appends to one attempt's files. Ids are `<attempt>-<n>`, n from 1 on without gaps."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder = folder
        self._attempt = attempt
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._followers: set[asyncio.Event] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self._number, self._last = _heal(folder / EVENTS)
        self._files = {name: _File(folder / name) for name in (EVENTS, *RAW)}
        self.over = False

    @property
    def ended(self) -> bool:
        """Whether the newest event is `end`: a life of this process before told it."""
        return self._last == "end"

    def event(self, event: str, data: dict[str, Any]) -> str:
        """Appends an event; returns its id."""
        with self._lock:
            return self._append(event, data)

    def output(self, stream: str, command: int, raw: bytes, shown: bytes | str) -> int:
        """Appends to a raw file and, when there is something to show, an event; returns the event's size."""
        with self._lock:
            if raw:
                self._files[stream].append(raw)
            if not shown:
                return 0
            data: dict[str, Any] = {"stream": stream, "command": command}
            if isinstance(shown, str):
                data["text"] = shown
            else:
                data["base64"] = base64.b64encode(shown).decode("ascii")
            self._append("output", data)
            return len(shown)

    def sync(self) -> None:
        """Everything so far is on the disk when this returns."""
        with self._lock:
            # The folder's sync keeps the empty ones.
            for file in self._files.values():
                if file.size:
                    file.sync()
            sync_folder(self.folder)

    def close(self) -> None:
        """No more will come, and what is appended raises OSError; followers end."""
        with self._lock:
            self.over = True
            for file in self._files.values():
                file.close()
            self._notify()

    async def follow(self, name: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of one of the files as they come, until the journal is closed."""
        changed = asyncio.Event()
        self._followers.add(changed)
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(offset)
                while True:
                    changed.clear()
                    over = self.over
                    # Never into an append that is under way: it may fail and be taken back.
                    while (left := self._files[name].size - file.tell()) > 0:
                        if not (chunk := file.read(min(left, _READ_BYTES))):
                            break
                        yield chunk
                    if over:
                        return
                    await changed.wait()
        finally:
            self._followers.discard(changed)

    async def changed(self) -> AsyncIterator[None]:
        """Yields now and after every change, until the journal is closed."""
        changed = asyncio.Event()
        self._followers.add(changed)
        try:
            while True:
                changed.clear()
                over = self.over
                yield
                if over:
                    return
                await changed.wait()
        finally:
            self._followers.discard(changed)

    def _append(self, event: str, data: dict[str, Any]) -> str:
        ident = f"{self._attempt}-{self._number + 1}"
        line = orjson.dumps({"id": ident, "event": event, "data": data}) + b"\n"
        self._files[EVENTS].append(line)
        self._number, self._last = self._number + 1, event
        self._notify()
        return ident

    def _notify(self) -> None:
        if self._followers:
            with contextlib.suppress(RuntimeError):  # the loop may be gone, and with it the followers
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for follower in self._followers:
            follower.set()


class _File:
    """A file that is appended to: a piece is in it whole or not at all. `size` is that of whole ones."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self.size = self._file.tell()

    def append(self, data: bytes) -> None:
        if self._file.closed:
            raise OSError(errno.EBADF, "this attempt's files are closed")
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            # A full disk takes half of a piece; what comes after it must not be glued to that.
            os.ftruncate(self._file.fileno(), self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _heal(path: Path) -> tuple[int, str]:
    """Cuts a line that a crash left unfinished; returns number and name of the last event.

    A piece at a time: what a task wrote may be hundreds of megabytes.
    """
    number = size = last = whole = 0  # `last`: where the last whole line begins, `whole`: where it ends
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return 0, ""
    with file:
        while chunk := file.read(_READ_BYTES):
            if (end := chunk.rfind(b"\n")) >= 0:
                before = chunk.rfind(b"\n", 0, end)
                last = size + before + 1 if before >= 0 else whole
                whole = size + end + 1
                number += chunk.count(b"\n")
            size += len(chunk)
        if whole != size:
            file.truncate(whole)
        file.seek(last)
        line = file.read(whole - last)
    try:
        return number, str(orjson.loads(line)["event"]) if line else ""
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return number, ""

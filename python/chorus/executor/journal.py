"""The story of one attempt on disk: numbered events as JSON lines, and the raw output. Read while it is
written.

Written by the loop and by the sandbox's thread alike; readers follow the file.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

EVENTS: Final = "events.jsonl"
ARTIFACTS: Final = "artifacts.json"
ARTIFACT_FOLDER: Final = "artifacts"
_READ_BYTES = 256 * 1024


def attempt_folder(tasks: Path, task_id: str, attempt: int) -> Path:
    """Where an attempt's files lie."""
    return tasks / task_id / str(attempt)


class Journal:
    """Appends to one attempt's files. Ids are `<attempt>-<n>`, n from 1 on without gaps."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder = folder
        self._attempt = attempt
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._followers: set[asyncio.Event] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self._number = _heal(folder / EVENTS)
        self._events = (folder / EVENTS).open("ab", buffering=0)
        self._raw: dict[str, BinaryIO] = {
            stream: (folder / stream).open("ab", buffering=0) for stream in ("stdout", "stderr")
        }
        self.over = False

    def event(self, event: str, data: dict[str, Any]) -> str:
        """Appends an event; returns its id."""
        with self._lock:
            return self._append(event, data)

    def output(self, stream: str, command: int, raw: bytes, shown: bytes | str) -> int:
        """Appends to a raw file and, when there is something to show, an event; returns the event's size."""
        with self._lock:
            if raw:
                _write_all(self._raw[stream], raw)
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
            for file in (self._events, *self._raw.values()):
                if file.tell():
                    os.fsync(file.fileno())
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """No more will come; followers end."""
        with self._lock:
            self.over = True
            for file in (self._events, *self._raw.values()):
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
                    while chunk := file.read(_READ_BYTES):
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
        _write_all(self._events, line)
        self._number += 1
        self._notify()
        return ident

    def _notify(self) -> None:
        if self._followers:
            with contextlib.suppress(RuntimeError):  # the loop may be gone, and with it the followers
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for follower in self._followers:
            follower.set()


def _write_all(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _heal(path: Path) -> int:
    """Cuts a line that a crash left unfinished; returns the number of the last event."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
    return data.count(b"\n", 0, whole)

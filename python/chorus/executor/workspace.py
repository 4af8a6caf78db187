"""What goes into a sandbox before the commands (source, stdin) and what comes out after them (artifacts)."""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from chorus.archives import confined
from chorus.archives.clean import from_file, from_files
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge
from chorus.blobs import BlobStore
from chorus.blobs.exchange import fetch as fetch_blob
from chorus.executor.backend import FileEntry, NoSpace, Sandbox, SandboxError
from chorus.executor.globs import Globs, TooMuchWork
from chorus.executor.journal import ARTIFACT_FOLDER, ARTIFACTS
from chorus.hub import Hub
from chorus.wire.task import TaskSubmission

# All artifacts of an attempt together, and how many.
ARTIFACT_BYTES_MAX = 256 * 1024 * 1024
ARTIFACTS_MAX = 1000
# The archive that they come out in, with a header or three for each.
PACKED_BYTES_MAX = ARTIFACT_BYTES_MAX + ARTIFACTS_MAX * 8192
# The list travels in the result's entry, which holds 256 KiB.
ARTIFACT_LIST_BYTES_MAX = 96 * 1024
# Those that are named beside them.
REFUSED_MAX = 50
_TOLD_CHARS_MAX = 1000
STDIN_PATH = "/tmp/.chorus-stdin"


@dataclass(slots=True)
class Artifacts:
    """What was collected, and what was refused and why."""

    items: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)

    def refuse(self, path: str, why: str) -> None:
        """Notes the first few that are refused, their names cut to what a person reads."""
        if len(self.refused) < REFUSED_MAX:
            self.refused.append({"path": _told(path), "reason": _told(why)})


class Sources:
    """Brings a task's inputs here, checked and ready to be unpacked."""

    def __init__(self, hub: Hub, blobs: BlobStore, scratch: Path) -> None:
        self._hub = hub
        self._blobs = blobs
        self._scratch = scratch

    async def prepare(self, task: TaskSubmission, holders: Iterable[str], bytes_max: int) -> Path | None:
        """A clean tar of the source, or None without one. Raises ArchiveRefused, HubError, OSError."""
        source = task.source
        if source is None:
            return None
        await asyncio.to_thread(self._scratch.mkdir, parents=True, exist_ok=True)
        into = self._scratch / "source.tar"
        if source.kind == "inline":
            await asyncio.to_thread(from_files, source.files, into)
        else:
            await fetch_blob(self._hub, self._blobs, source.blob, holders)
            await confined.clean(self._blobs.path(source.blob), into, bytes_max=bytes_max)
        return into

    async def stdin(self, task: TaskSubmission, holders: Iterable[str]) -> Path | None:
        """A tar of the one file that is the commands' stdin, or None. Raises HubError, OSError."""
        if not task.stdin and not task.stdin_sha256:
            return None
        await asyncio.to_thread(self._scratch.mkdir, parents=True, exist_ok=True)
        into = self._scratch / "stdin.tar"
        name = posixpath.basename(STDIN_PATH)
        if task.stdin_sha256:
            await fetch_blob(self._hub, self._blobs, task.stdin_sha256, holders)
            await asyncio.to_thread(from_file, name, self._blobs.path(task.stdin_sha256), into)
        else:
            data = task.stdin.encode("utf-8", "surrogatepass")
            await asyncio.to_thread(from_files, {name: data}, into)
        return into


# Names go into headers and onto terminals; the table takes none with these.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def choose_artifacts(
    entries: list[FileEntry],
    globs: Iterable[str],
    found: Artifacts,
    clean: Callable[[str], str] = lambda path: path,
) -> dict[str, FileEntry]:
    """The files that the globs name, links followed inside the workspace.

    What may not leave is refused by name. For a thread: a workspace may hold very many files.
    """
    patterns = Globs(globs)
    links = _Links(entries)
    chosen: dict[str, FileEntry] = {}
    total = listed = 0
    try:
        for entry in sorted(entries, key=lambda entry: entry.path):
            if entry.kind == "directory" or not patterns.match(entry.path):
                continue
            target = links.follow(entry)
            why = ""
            if target is None:
                why = f"a link out of the workspace or to nothing: {entry.target}"
            elif target.kind == "directory":
                continue
            elif target.kind != "file":
                why = "neither file, folder nor link"
            elif not _printable(entry.path):
                why = "its name is not UTF-8"
            elif _CONTROL.search(entry.path):
                why = "its name holds control characters"
            elif clean(entry.path) != entry.path:
                why = "its name holds a secret"
            elif total + target.size > ARTIFACT_BYTES_MAX:
                why = f"more than {ARTIFACT_BYTES_MAX // (1024 * 1024)} MiB of artifacts"
            elif len(chosen) >= ARTIFACTS_MAX or listed + len(entry.path) + 120 > ARTIFACT_LIST_BYTES_MAX:
                why = "too many artifacts"
            if why or target is None:
                found.refuse(clean(entry.path.encode("utf-8", "replace").decode()), clean(why))
                continue
            total += target.size
            listed += len(entry.path) + 120
            chosen[entry.path] = target
    except TooMuchWork:
        found.refuse("", "so many files and patterns take too long to match; name fewer or plainer patterns")
    return chosen


async def collect(
    sandbox: Sandbox, globs: Iterable[str], folder: Path, scratch: Path, clean: Callable[[str], str]
) -> Artifacts:
    """Brings the artifacts out and onto the disk. Never raises for what a task did to its files.

    Whatever name `clean` changes holds a secret: that file is left out.
    """
    found = Artifacts()
    try:
        chosen = await asyncio.to_thread(choose_artifacts, await sandbox.files(), globs, found, clean)
        if chosen:
            await asyncio.to_thread(scratch.mkdir, parents=True, exist_ok=True)
            packed = scratch / "artifacts.tar"
            names = sorted({entry.path for entry in chosen.values()})
            await sandbox.get(names, packed, bytes_max=PACKED_BYTES_MAX)
            found.items = await _unpack(packed, chosen, folder)
    except (SandboxError, ArchiveRefused) as error:
        found.refuse("", f"the artifacts could not be collected: {error}")
    await asyncio.to_thread(_write_list, folder, found)
    return found


async def _unpack(packed: Path, chosen: dict[str, FileEntry], folder: Path) -> list[dict[str, Any]]:
    """Stores the files of the sandbox's archive; raises ArchiveRefused for what is none, OSError."""
    store = folder / ARTIFACT_FOLDER
    await asyncio.to_thread(store.mkdir, parents=True, exist_ok=True)
    wanted = {entry.path for entry in chosen.values()}
    try:
        stored = await confined.take(packed, wanted, store, bytes_max=PACKED_BYTES_MAX)
    except ArchiveTooLarge:
        raise ArchiveRefused("the artifacts grew while they were packed") from None
    finally:
        await asyncio.to_thread(packed.unlink, missing_ok=True)
    items = []
    for path, entry in chosen.items():
        if entry.path in stored:
            name, size, sha256 = stored[entry.path]
            items.append({"path": path, "size": size, "sha256": sha256, "file": name})
    return items


def _write_list(folder: Path, found: Artifacts) -> None:
    with (folder / ARTIFACTS).open("wb") as file:
        file.write(orjson.dumps({"items": found.items, "refused": found.refused}))
        file.flush()
        os.fsync(file.fileno())


class _Links:
    """Where links lead inside the workspace. Each is followed once, however many lead through it."""

    def __init__(self, entries: list[FileEntry]) -> None:
        self._known = {entry.path: entry for entry in entries}
        self._ends: dict[str, FileEntry | None] = {}

    def follow(self, entry: FileEntry) -> FileEntry | None:
        """None when it leaves the workspace, leads to nothing or turns in circles."""
        passed: dict[str, None] = {}
        end: FileEntry | None = entry
        while end is not None and end.kind == "link":
            if end.path in passed:
                end = None
            elif end.path in self._ends:
                end = self._ends[end.path]
            else:
                passed[end.path] = None
                end = self._next(end)
        self._ends.update(dict.fromkeys(passed, end))
        return end

    def _next(self, link: FileEntry) -> FileEntry | None:
        if link.target.startswith("/workspace/"):
            return self._known.get(posixpath.normpath(link.target.removeprefix("/workspace/")))
        if link.target.startswith("/"):
            return None
        folder = posixpath.dirname(link.path)
        return self._known.get(posixpath.normpath(posixpath.join(folder, link.target)))


def _told(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:_TOLD_CHARS_MAX]


def _printable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def no_space(error: Exception) -> bool:
    """Whether an input did not fit on the sandbox's disk."""
    return isinstance(error, (NoSpace, ArchiveTooLarge))

"""What goes into a sandbox before the commands (source, stdin) and what comes out after them (artifacts)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from chorus.archives import confined
from chorus.archives.clean import from_file, from_files
from chorus.archives.errors import ArchiveTooLarge
from chorus.blobs import BlobStore
from chorus.blobs.exchange import fetch as fetch_blob
from chorus.executor.backend import FileEntry, NoSpace, Sandbox
from chorus.executor.globs import Globs, TooMuchWork
from chorus.executor.journal import ARTIFACT_FOLDER, ARTIFACTS
from chorus.hub import Hub
from chorus.wire.task import TaskSubmission
from chorus.wire.visible import visible

# All artifacts of an attempt together, and how many.
ARTIFACT_BYTES_MAX = 256 * 1024 * 1024
ARTIFACTS_MAX = 10_000
# The archive that they come out in, with a header or three for each.
PACKED_BYTES_MAX = ARTIFACT_BYTES_MAX + ARTIFACTS_MAX * 8192
# Those that are named beside them; of more it is said how many.
LEFT_OUT_MAX = 1000
# Linux opens no longer path; "./" stands before it, and a zero byte after it.
PATH_BYTES_MAX = 4096 - 3
# As the table takes what is said of them.
NAME_CHARS_MAX = 4096
REASON_CHARS_MAX = 1000
STDIN_PATH = "/tmp/.chorus-stdin"
# Numbers from here on name files of the agent's own making.
_MADE_FROM = 100_000_000


@dataclass(slots=True)
class Artifacts:
    """What was kept, and what was left out and why: a file, a glob that fits none, or (without a name) what
    concerns all.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    _unnamed: int = 0

    def leave_out(self, path: str, why: str) -> None:
        """Notes what was left out, its name as it may be shown."""
        if len(self.left_out) < LEFT_OUT_MAX:
            told = {"path": _shown(path, NAME_CHARS_MAX), "reason": _shown(why, REASON_CHARS_MAX)}
            self.left_out.append(told)
            return
        self._unnamed += 1
        self.left_out[LEFT_OUT_MAX:] = [{"path": "", "reason": f"{self._unnamed} more were left out"}]


class Inputs(Protocol):
    """What brings a task's inputs."""

    async def prepare(self, task: TaskSubmission, holders: Iterable[str], bytes_max: int) -> Path | None:
        """As `Sources.prepare`."""

    async def stdin(self, task: TaskSubmission, holders: Iterable[str]) -> Path | None:
        """As `Sources.stdin`."""


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


def choose_artifacts(
    entries: list[FileEntry],
    globs: Iterable[str],
    found: Artifacts,
    clean: Callable[[str], str] = lambda path: path,
) -> dict[str, FileEntry]:
    """The files that the globs name, links followed inside the workspace.

    What does not leave is noted by name. For a thread: a workspace may hold very many files.
    """
    patterns = Globs(globs)
    links = _Links(entries)
    filled = {posixpath.dirname(entry.path) for entry in entries}
    chosen: dict[str, FileEntry] = {}
    total = 0

    def leave_out(path: str, why: str) -> None:
        told = clean(path)
        # Bytes that are no UTF-8 are lost where a text is cleaned.
        whole = told == path.encode("utf-8", "replace").decode()
        found.leave_out(path if whole else told, clean(why))

    for glob in patterns.refused:
        leave_out(glob, "the braces of this pattern stand for too many patterns; write plainer ones")
    try:
        for entry in sorted(entries, key=lambda entry: entry.path):
            if entry.kind == "directory" and not entry.readable and patterns.reaches_below(entry.path):
                leave_out(entry.path, "a folder that cannot be read")
                continue
            if not patterns.match(entry.path) or (entry.kind == "directory" and entry.path in filled):
                continue
            target = links.follow(entry)
            why = _why_not(entry, target)
            if not why and clean(entry.path) != entry.path:
                why = "its name holds a secret"
            elif not why and len(chosen) >= ARTIFACTS_MAX:
                why = f"more than {ARTIFACTS_MAX} artifacts"
            elif not why and target is not None and total + target.size > ARTIFACT_BYTES_MAX:
                why = f"more than {ARTIFACT_BYTES_MAX // (1024 * 1024)} MiB of artifacts"
            if why or target is None:
                leave_out(entry.path, why)
                continue
            total += target.size
            chosen[entry.path] = target
        for glob in patterns.unmatched():
            leave_out(glob, "no file fits this pattern")
    except TooMuchWork:
        found.leave_out(
            "", "so many files and patterns take too long to match; name fewer or plainer patterns"
        )
    return chosen


def _why_not(entry: FileEntry, target: FileEntry | None) -> str:
    """What keeps a file in the sandbox; empty when nothing does. `target` is where links lead."""
    if target is None:
        return f"a link out of the workspace or to nothing: {entry.target}"
    if target.kind == "directory":
        return "an empty folder" if entry.kind == "directory" else f"a link to a folder: {entry.target}"
    if target.kind != "file":
        return "neither file, folder nor link"
    try:
        size = max(len(path.encode()) for path in (entry.path, target.path))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if size > PATH_BYTES_MAX:
        return f"its path is longer than {PATH_BYTES_MAX} bytes"
    # Names go into headers and onto terminals; the table takes none with these.
    if any(unicodedata.category(sign) == "Cc" for sign in entry.path):
        return "its name holds control characters"
    return "" if target.readable else "it cannot be read"


async def collect(
    sandbox: Sandbox,
    globs: Iterable[str],
    folder: Path,
    scratch: Path,
    clean: Callable[[str], str],
    made: Sequence[tuple[str, Path]] = (),
) -> Artifacts:
    """Brings the artifacts out and onto the disk. Never raises, as the commands have ended: a file that
    cannot be had is left out, by name, and nothing is run again for it.

    Whatever name `clean` changes holds a secret: that file is left out. `made` are files of the agent's own
    making, each under a name that no file of the task takes from it.
    """
    found = Artifacts()
    try:
        await asyncio.to_thread(_keep_made, made, folder, found)
        wanted = tuple(globs)
        chosen = {}
        if wanted:
            chosen = await asyncio.to_thread(choose_artifacts, await sandbox.files(), wanted, found, clean)
        for name, _ in made:
            chosen.pop(name, None)
        if chosen:
            await asyncio.to_thread(scratch.mkdir, parents=True, exist_ok=True)
            packed = scratch / "artifacts.tar"
            names = sorted({entry.path for entry in chosen.values()})
            await sandbox.get(names, packed, bytes_max=PACKED_BYTES_MAX)
            await _unpack(packed, chosen, folder, found)
        await asyncio.to_thread(_write_list, folder, found)
    except Exception as error:
        found.items = [item for item in found.items if int(item["file"]) >= _MADE_FROM]
        found.leave_out("", clean(f"the artifacts could not be collected: {error or type(error).__name__}"))
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write_list, folder, found)
    return found


def _keep_made(made: Sequence[tuple[str, Path]], folder: Path, found: Artifacts) -> None:
    store = folder / ARTIFACT_FOLDER
    store.mkdir(parents=True, exist_ok=True)
    for number, (name, path) in enumerate(made, _MADE_FROM):
        place = store / str(number)
        place.unlink(missing_ok=True)
        place.hardlink_to(path)
        with place.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        found.items.append(
            {"path": name, "size": size, "sha256": digest, "mode": "0644", "file": str(number)}
        )


async def _unpack(packed: Path, chosen: dict[str, FileEntry], folder: Path, found: Artifacts) -> None:
    """Stores the files of the sandbox's archive. Raises ArchiveRefused, OSError when none can be had."""
    store = folder / ARTIFACT_FOLDER
    await asyncio.to_thread(store.mkdir, parents=True, exist_ok=True)
    wanted = {entry.path for entry in chosen.values()}
    try:
        stored, broken = await confined.take(packed, wanted, store, bytes_max=PACKED_BYTES_MAX)
    finally:
        await asyncio.to_thread(packed.unlink, missing_ok=True)
    for path, entry in chosen.items():
        if entry.path in stored:
            name, size, sha256, mode = stored[entry.path]
            item = {"path": path, "size": size, "sha256": sha256, "mode": f"{mode:04o}", "file": name}
            found.items.append(item)
        else:
            found.leave_out(path, broken or "it could not be read")


def _write_list(folder: Path, found: Artifacts) -> None:
    """The list as its readers serve it: the old one, or this one whole."""
    aside = folder / f"{ARTIFACTS}.new"
    with aside.open("wb") as file:
        file.write(orjson.dumps({"items": found.items, "left_out": found.left_out}))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / ARTIFACTS)


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


def _shown(text: str, chars_max: int) -> str:
    """A name as it may be shown: bytes that are no UTF-8 and what would move a cursor are written out."""
    # Half a surrogate pair, which stands for no byte, `visible` writes out.
    with contextlib.suppress(UnicodeEncodeError):
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = visible(text)
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def no_space(error: Exception) -> bool:
    """Whether an input did not fit on the sandbox's disk."""
    return isinstance(error, (NoSpace, ArchiveTooLarge))

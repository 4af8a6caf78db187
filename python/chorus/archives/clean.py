"""Writes clean archives for a sandbox, and takes a sandbox's files out of one. Blocks.

Nothing but files, folders and links passes, without owners and special bits; no path leads out of the
workspace.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import tarfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from chorus.archives.answers import Stored
from chorus.archives.errors import ArchiveRefused, told
from chorus.archives.gunzip import open_stream
from chorus.archives.paths import PathRules
from chorus.archives.places import Places
from chorus.archives.tar import BLOCK_BYTES, Member, Tar

_COPY_BYTES = 256 * 1024
# Of the modes of folders that may not be written to; the others of such an archive may be written to.
_CLOSED_BYTES_MAX = 16 * 1024 * 1024
# Two blocks of zeros end an archive.
_END = bytes(2 * BLOCK_BYTES)


def from_files(files: Mapping[str, str | bytes], into: Path) -> None:
    """Writes inline files as an archive. Raises ArchiveRefused, OSError."""
    rules = PathRules()
    with into.open("wb") as out:
        for name, content in files.items():
            data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
            # A script that comes as text could not say that it may be run.
            mode = 0o755 if data.startswith(b"#!") else 0o644
            out.write(_header(rules.clean(name), tarfile.REGTYPE, mode, size=len(data)))
            out.write(data + bytes(-len(data) % BLOCK_BYTES))
        out.write(_END)


def from_file(name: str, source: Path, into: Path) -> None:
    """Writes one file as an archive, a piece at a time. Raises OSError."""
    with source.open("rb") as file, into.open("wb") as out:
        size = os.fstat(file.fileno()).st_size
        out.write(_header(name, tarfile.REGTYPE, 0o644, size=size))
        while data := file.read(_COPY_BYTES):
            out.write(data)
        out.write(bytes(-size % BLOCK_BYTES) + _END)


def sanitize(source: BinaryIO, into: Path | None, *, bytes_max: int) -> int:
    """Reads a tar or tar.gz as a stream and writes a clean tar, or only checks it; returns its size unpacked.

    Raises ArchiveRefused, ArchiveTooLarge beyond `bytes_max`, OSError of the disk.
    """
    rules = PathRules()
    tar = Tar(open_stream(source), bytes_max)
    with (into or Path(os.devnull)).open("wb") as out:
        admission = _Admission(rules, out.write)
        for member in tar:
            admission.admit(member, tar)
        admission.close_folders()
        out.write(_END)
    return bytes_max - tar.bytes_left


def take(
    source: BinaryIO, wanted: Collection[str], folder: Path, *, bytes_max: int
) -> tuple[dict[str, Stored], str]:
    """Stores the wanted files of a sandbox's archive in a folder, under numbers; by their paths.

    Beside them, in words, what kept the rest from being read; empty when nothing did. A name that a task made
    never becomes a name on this disk.
    """
    stored: dict[str, Stored] = {}
    try:
        tar = Tar(open_stream(source), bytes_max)
        for member in tar:
            path = posixpath.normpath(member.name)
            if path not in wanted or path in stored:
                continue
            if member.kind == "hardlink" and (same := stored.get(posixpath.normpath(member.target))):
                stored[path] = same
            elif member.kind == "file":
                stored[path] = _store(tar, member, folder, f"{len(stored):05d}")
    except ArchiveRefused as error:
        return stored, str(error)
    except OSError as error:
        return stored, f"this agent's disk failed: {error.strerror or error}"
    return stored, ""


def _store(tar: Tar, member: Member, folder: Path, name: str) -> Stored:
    """Writes a member's content to the disk; a file that is not whole does not stay.

    Raises ArchiveRefused, OSError.
    """
    digest = hashlib.sha256()
    place = folder / name
    try:
        with place.open("wb") as file:
            while data := tar.read(_COPY_BYTES):
                digest.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return name, member.size, digest.hexdigest(), member.mode & 0o777


class _Admission:
    """Writes members with fresh headers that hold only what may pass."""

    def __init__(self, rules: PathRules, write: Callable[[bytes], object]) -> None:
        self._rules, self._write = rules, write
        self._places = Places()
        # Folders that their owner may not write to: the header of each, for after what is in it.
        self._closed: dict[str, bytes] = {}
        self._closed_bytes = 0

    def admit(self, member: Member, tar: Tar) -> None:
        """Writes one member. Raises ArchiveRefused."""
        path = self._rules.clean(member.name)
        if path == ".":
            if member.kind != "directory":
                raise ArchiveRefused(f"{told(member.name) or 'a member'}: no name")
            return
        self._closed.pop(path, None)
        # No set-user-id bits; and its owner there, who may be of its group here, can read it.
        mode = member.mode & 0o777 | 0o400
        match member.kind:
            case "directory":
                self._places.folder(path, member.name)
                self._folder(path, mode | 0o100, member.mtime)
            case "file":
                self._places.file(path, member.name)
                self._rules.plain(path)
                self._write(_header(path, tarfile.REGTYPE, mode, mtime=member.mtime, size=member.size))
                while data := tar.read(_COPY_BYTES):
                    self._write(data)
                self._write(bytes(-member.size % BLOCK_BYTES))
            case "symlink":
                self._link(path, member.target, member)
            case "hardlink":
                self._hard_link(path, member)
            case "fifo":
                raise ArchiveRefused(f"{told(member.name)}: a FIFO")
            case "device":
                raise ArchiveRefused(f"{told(member.name)}: a device")
            case "other":
                raise ArchiveRefused(f"{told(member.name)}: neither file, folder nor link")

    def close_folders(self) -> None:
        """Gives folders that may not be written to their modes, the inner ones first."""
        for path in sorted(self._closed, reverse=True):
            # Not where a later link took the place of a folder above it.
            with contextlib.suppress(ArchiveRefused):
                if self._rules.clean(path) == path:
                    self._write(self._closed[path])

    def _folder(self, path: str, mode: int, mtime: int) -> None:
        self._rules.plain(path)
        self._write(_header(path, tarfile.DIRTYPE, mode | 0o200, mtime=mtime))
        if not mode & 0o200:
            header = _header(path, tarfile.DIRTYPE, mode, mtime=mtime)
            self._closed_bytes += len(path) + len(header)
            if self._closed_bytes <= _CLOSED_BYTES_MAX:
                self._closed[path] = header

    def _link(self, path: str, target: str, member: Member) -> None:
        if not target:
            raise ArchiveRefused(f"{told(member.name)}: a link without a target")
        self._rules.link(path, target, name=member.name)
        self._places.link(path, member.name)
        self._write(_header(path, tarfile.SYMTYPE, 0o777, mtime=member.mtime, target=target))

    def _hard_link(self, path: str, member: Member) -> None:
        try:
            target = self._rules.clean(member.target)
        except ArchiveRefused as error:
            raise ArchiveRefused(f"{told(member.name)}: a hard link out of the workspace ({error})") from None
        # A second name of a link leads elsewhere from another folder.
        if (leads_to := self._rules.target(target)) is not None:
            self._link(path, leads_to, member)
            return
        if not self._places.is_file(target):
            raise ArchiveRefused(
                f"{told(member.name)}: a hard link to {told(member.target)}, which is no file before it"
            )
        self._places.file(path, member.name)
        self._rules.plain(path)
        self._write(_header(path, tarfile.LNKTYPE, 0o600, mtime=member.mtime, target=target))


def _header(path: str, type: bytes, mode: int, *, mtime: int = 0, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime, info.size, info.linkname = type, mode, mtime, size, target
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

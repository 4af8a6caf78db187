"""Checks tar archives on their way in and out: nothing leaves the workspace, nothing but files, folders
and links.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

# Enough for any source tree; an archive of a hundred million empty files is an attack.
MEMBERS_MAX = 1_000_000
_LINK_DEPTH_MAX = 40


class ArchiveRefused(Exception):
    """The archive names something it must not; the message says what."""


class ArchiveTooLarge(ArchiveRefused):
    """Unpacked it would not fit on the sandbox's disk."""


class _Circle(ArchiveRefused):
    """Links that lead to each other."""


class PathRules:
    """Follows links lexically, so that no path leads out through a link that came before it."""

    def __init__(self) -> None:
        # By the place where a link really lies, links above it followed.
        self._links: dict[str, str] = {}

    def clean(self, name: str) -> str:
        """The path below the workspace; raises ArchiveRefused."""
        if name.startswith("/"):
            raise ArchiveRefused(f"{name}: an absolute path")
        if "\0" in name:
            raise ArchiveRefused(f"{name!r}: a NUL in the path")
        if ".." in name.split("/"):
            raise ArchiveRefused(f"{name}: leaves the workspace")
        path = posixpath.normpath(name)
        self._place(path)
        return path

    def link(self, path: str, target: str) -> None:
        """Admits a symbolic link whose target lies in the workspace.

        One that leads in a circle leads nowhere out.
        """
        place = self._place(path)
        before = self._links.get(place)
        self._links[place] = target
        try:
            self._resolve(place, path)
        except _Circle:
            pass
        except ArchiveRefused:
            self._links.pop(place)
            if before is not None:
                self._links[place] = before
            raise ArchiveRefused(f"{path}: a link out of the workspace, to {target}") from None

    def plain(self, path: str) -> None:
        """A file or folder takes the place of a link of the same name."""
        self._links.pop(self._place(path), None)

    def _place(self, path: str) -> str:
        folder = self._resolve(posixpath.dirname(path), path)
        return posixpath.join(folder, posixpath.basename(path))

    def _resolve(self, path: str, name: str) -> str:
        """Where a path really leads, below the workspace."""
        todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    raise ArchiveRefused(f"{name}: leaves the workspace")
                done.pop()
                continue
            target = self._links.get("/".join((*done, part)))
            if target is None:
                done.append(part)
                continue
            hops += 1
            if hops > _LINK_DEPTH_MAX:
                raise _Circle(f"{name}: links in a circle")
            if target.startswith("/"):
                raise ArchiveRefused(f"{name}: leaves the workspace")
            todo.extend(target.split("/")[::-1])
        return "/".join(done)


def from_files(files: Mapping[str, str | bytes], into: Path) -> list[str]:
    """Writes inline files as an archive; returns their names."""
    rules = PathRules()
    names = []
    with tarfile.open(into, "w", format=tarfile.GNU_FORMAT) as out:
        for name, content in files.items():
            data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
            member = tarfile.TarInfo(rules.clean(name))
            member.size = len(data)
            # A script that comes as text could not say that it may be run.
            member.mode = 0o755 if data.startswith(b"#!") else 0o644
            out.addfile(member, io.BytesIO(data))
            names.append(member.name)
    return names


def sanitize(source: BinaryIO, into: Path, *, bytes_max: int) -> list[str]:
    """Reads a tar or tar.gz as a stream and writes a clean tar; returns the names of its files."""
    rules = PathRules()
    names: list[str] = []
    total = members = 0
    try:
        with (
            tarfile.open(fileobj=source, mode="r|*") as archive,
            tarfile.open(into, "w", format=tarfile.GNU_FORMAT) as out,
        ):
            for member in archive:
                members += 1
                total += member.size + tarfile.BLOCKSIZE
                if members > MEMBERS_MAX or total > bytes_max:
                    raise ArchiveTooLarge("the source does not fit on the sandbox's disk")
                clean = _clean(member, rules)
                if clean is None:
                    continue
                if clean.isreg():
                    out.addfile(clean, archive.extractfile(member))
                    names.append(clean.name)
                else:
                    out.addfile(clean)
    except (tarfile.TarError, EOFError, OSError, UnicodeError, ValueError) as error:
        raise ArchiveRefused(f"not a readable tar archive: {error}") from error
    return names


def _clean(member: tarfile.TarInfo, rules: PathRules) -> tarfile.TarInfo | None:
    """A fresh header with only what may pass; None for the workspace itself."""
    path = rules.clean(member.name)
    clean = tarfile.TarInfo(path)
    clean.mtime = max(0, int(member.mtime))
    # Neither set-user-id bits nor folders that their owner cannot enter.
    clean.mode = (member.mode & 0o777) | (0o700 if member.isdir() else 0o600)
    if member.isdir():
        if path == ".":
            return None
        rules.plain(path)
        clean.type = tarfile.DIRTYPE
    elif member.isreg():
        rules.plain(path)
        clean.size = member.size
    elif member.issym():
        rules.link(path, member.linkname)
        clean.type, clean.linkname = tarfile.SYMTYPE, member.linkname
    elif member.islnk():
        rules.plain(path)
        try:
            clean.type, clean.linkname = tarfile.LNKTYPE, rules.clean(member.linkname)
        except ArchiveRefused as error:
            raise ArchiveRefused(f"{member.name}: a hard link out of the workspace ({error})") from None
    elif member.isfifo():
        raise ArchiveRefused(f"{member.name}: a FIFO")
    elif member.ischr() or member.isblk():
        raise ArchiveRefused(f"{member.name}: a device")
    else:
        raise ArchiveRefused(f"{member.name}: neither file, folder nor link")
    return clean

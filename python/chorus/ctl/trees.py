"""What a folder, or the archive of one, holds: for each file and link what it is, to see what has changed."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

_COPY_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, by the hash of its content and whether it can be run, or a link, by where it leads."""

    kind: Literal["file", "link", "other"]
    content: str
    executable: bool = False


# Paths with slashes, relative to the folder; names that are not UTF-8 have surrogates.
Entries = dict[str, Entry]


def packed(archive: IO[bytes]) -> Entries:
    """What an archive that `pack` wrote holds, folders aside."""
    archive.seek(0)
    found: Entries = {}
    with tarfile.open(fileobj=archive, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            if member.issym():
                found[member.name] = Entry("link", member.linkname)
            elif member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = Entry("file", _digest(content), bool(member.mode & 0o100))
    return found


def unpack(archive: IO[bytes], folder: Path) -> None:
    """Unpacks an archive that `pack` wrote into an empty folder."""
    archive.seek(0)
    with tarfile.open(fileobj=archive, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            # What cannot be written or entered by its owner could not be changed.
            member.mode |= 0o700 if member.isdir() else 0o600
            # The archive is this program's own, of a folder of the user's.
            tar.extract(member, folder, set_attrs=not member.issym(), filter="fully_trusted")


def below(folder: Path) -> Entries:
    """What a folder holds, folders aside. Raises OSError."""
    found: Entries = {}
    for where, _, names in _walk(folder):
        for name in names:
            path = os.path.join(where, name)  # noqa: PTH118
            relative = os.path.relpath(path, folder)
            entry = at(folder, relative)
            assert entry is not None
            found[relative] = entry
    return found


def at(folder: Path, path: str) -> Entry | None:
    """What lies there; None for nothing. A link on the way to it is nothing too. Raises OSError."""
    place = folder
    *parents, name = path.split("/")
    for parent in parents:
        place = place / parent
        try:
            if not stat.S_ISDIR(place.lstat().st_mode):
                return None
        except FileNotFoundError:
            return None
    place = place / name
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        return Entry("link", os.readlink(place))  # noqa: PTH115
    if not stat.S_ISREG(mode):
        return Entry("other", stat.filemode(mode))
    with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return Entry("file", _digest(file), bool(mode & 0o100))


def _walk(folder: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    def fail(error: OSError) -> None:
        raise error

    for where, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]  # noqa: PTH114, PTH118
        yield where, folders, [*files, *links]


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := content.read(_COPY_BYTES):
        digest.update(piece)
    return digest.hexdigest()

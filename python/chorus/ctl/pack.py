"""Packs a folder into a tar for a task: the same names, contents and modes give the same bytes.

What no sandbox takes is left out and named: special files, relative links out of the folder, what cannot be
read.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Final, TypeVar

from chorus.archives.errors import ArchiveRefused
from chorus.archives.paths import PathRules
from chorus.ctl.left_out import LeftOut
from chorus.ctl.tree import special

# Some tools refuse times before 1980, and real ones would make every archive another.
MODIFIED_S: Final = 946_684_800
_COPY_BYTES: Final = 256 * 1024
_END: Final = bytes(2 * tarfile.BLOCKSIZE)
LINK_OUT: Final = "a link out of the folder"
CHANGED: Final = "changed while it was packed"
_T = TypeVar("_T")


def pack(root: Path, paths: Iterable[str], out: IO[bytes]) -> list[LeftOut]:
    """Writes the archive of these files, links and folders below `root`; returns what is left out.

    Raises OSError when `out` takes no more.
    """
    packing = _Packing(root, out)
    left_out = []
    for path in paths:
        if (why := packing.add(path)) is not None:
            left_out.append(LeftOut(path, why))
    out.write(_END)
    return left_out


class _Unreadable(Exception):
    """A file cannot be read; the message is the reason."""


class _Packing:
    def __init__(self, root: Path, out: IO[bytes]) -> None:
        self._root, self._out = root, out
        # The sandbox's side refuses by the same rules.
        self._rules = PathRules()

    def add(self, path: str) -> str | None:
        """Adds what lies there, or says why it is left out."""
        try:
            mode = _asked(lambda: (self._root / path).lstat().st_mode)
            if stat.S_ISLNK(mode):
                # A Path would write the target in another way.
                return self._add_link(path, _asked(lambda: os.readlink(self._root / path)))  # noqa: PTH115
            if stat.S_ISREG(mode):
                return self._add_file(path)
        except _Unreadable as error:
            return str(error)
        if stat.S_ISDIR(mode):
            self._out.write(_header(path, tarfile.DIRTYPE, mode))
            return None
        return special(mode) or CHANGED

    def _add_link(self, path: str, target: str) -> str | None:
        try:
            self._rules.link(self._rules.clean(path), target)
        except ArchiveRefused:
            return LINK_OUT
        self._out.write(_header(path, tarfile.SYMTYPE, 0o777, target=target))
        return None

    def _add_file(self, path: str) -> str | None:
        start = self._out.tell()
        try:
            with _opened(self._root / path) as file:
                return self._copy(path, file)
        except _Unreadable:
            # What was written of it goes again.
            self._out.seek(start)
            self._out.truncate()
            raise

    def _copy(self, path: str, file: IO[bytes]) -> str | None:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            return CHANGED
        left = info.st_size
        self._out.write(_header(path, tarfile.REGTYPE, info.st_mode, size=left))
        while left and (data := _piece(file, left)):
            left -= len(data)
            self._out.write(data)
        if left:
            raise _Unreadable(CHANGED)  # it is shorter now
        self._out.write(bytes(-info.st_size % tarfile.BLOCKSIZE))
        return None


def _opened(path: Path) -> IO[bytes]:
    # Should it have become a link or a FIFO, neither is followed or waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(_asked(lambda: os.open(path, flags)), "rb", buffering=0)


def _piece(file: IO[bytes], left: int) -> bytes:
    return _asked(lambda: file.read(min(left, _COPY_BYTES)))


def _asked(ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except FileNotFoundError:
        raise _Unreadable(CHANGED) from None
    except OSError as error:
        raise _Unreadable(f"cannot be read: {error.strerror}") from None


def _header(path: str, type: bytes, mode: int, *, size: int = 0, target: str = "") -> bytes:
    member = tarfile.TarInfo(path)
    member.type, member.size, member.linkname = type, size, target
    # Neither set-user-id bits nor the times and owners of this machine.
    member.mode, member.mtime = mode & 0o777, MODIFIED_S
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

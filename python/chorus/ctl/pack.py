"""Packs a folder into a tar for a task: same files, same bytes; what leads out of it is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from chorus.ctl.problems import CtlError

# Some tools refuse times before 1980, and real ones would make every archive another.
MODIFIED_S: Final = 946_684_800
_NEVER: Final = frozenset({".git", ".hg", ".svn"})


def listed(folder: Path) -> list[str]:
    """The files of a folder, and its empty folders. Ignored files of a git work tree stay behind.

    Raises CtlError when it is no folder.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise CtlError(f"--dir {folder}: {'not a folder' if root.exists() else 'no such folder'}")
    return _listed_by_git(root) or list(_walked(root))


def pack(folder: Path, names: Iterable[str], out: BinaryIO) -> None:
    """Writes the archive of these files. Raises CtlError naming what cannot be in one."""
    root = folder.resolve()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            _add(archive, root, name)


def _add(archive: tarfile.TarFile, root: Path, name: str) -> None:
    path = root / name
    info = path.lstat()
    member = tarfile.TarInfo(name)
    member.mtime = MODIFIED_S
    if stat.S_ISLNK(info.st_mode):
        member.type = tarfile.SYMTYPE
        member.linkname = _inside(root, path, name)
        archive.addfile(member)
    elif stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
        member.mode = 0o755
        archive.addfile(member)
    elif stat.S_ISREG(info.st_mode):
        member.mode = 0o755 if info.st_mode & stat.S_IXUSR else 0o644
        with path.open("rb") as file:
            member.size = os.fstat(file.fileno()).st_size
            archive.addfile(member, file)
    else:
        raise CtlError(f"{name} is neither a file nor a folder nor a link; leave it out (.gitignore)")


def _inside(root: Path, path: Path, name: str) -> str:
    goal = path.readlink()
    resolved = Path(os.path.normpath(path.parent / goal))
    if goal.is_absolute() or not resolved.is_relative_to(root):
        raise CtlError(f"the link {name} leads out of the folder, to {goal}; make it relative and inside")
    return str(goal)


def _listed_by_git(root: Path) -> list[str] | None:
    """What git would not ignore; None when this is no work tree."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    names = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
    # A file that is tracked may be gone, and a submodule is listed as its folder.
    return [name for name in names if os.path.lexists(root / name) and not _is_folder(root / name)] or None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _walked(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _NEVER)
        base = Path(folder)
        linked = [name for name in folders if (base / name).is_symlink()]
        if base != root and not files and not folders:
            yield str(base.relative_to(root))
        for name in sorted(files + linked):
            yield str((base / name).relative_to(root))

"""Lists what an archive holds, file by file with hashes and places. Blocks; run by the child.

Only files and links are listed. What a repository cannot hold (FIFOs, devices) is passed over.
"""

from __future__ import annotations

import hashlib
import posixpath
from typing import BinaryIO

from chorus.archives.answers import Listed
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge, told
from chorus.archives.gunzip import GZIP_MAGIC
from chorus.archives.tar import Member, Tar

# More files than a workspace usually has with all its build folders; an entry takes some 500 bytes.
FILES_MAX = 200_000
# All names and targets of links together.
NAMES_BYTES_MAX = 32 * 1024 * 1024
_READ_BYTES = 256 * 1024


def index(source: BinaryIO, *, bytes_max: int) -> dict[str, Listed]:
    """The files and links of a tar that is not compressed, by their paths; of several at one path the last.

    Raises ArchiveRefused, ArchiveTooLarge, OSError.
    """
    head = source.read(len(GZIP_MAGIC))
    source.seek(0)
    if head == GZIP_MAGIC:
        raise ArchiveRefused("a compressed archive, where a plain one is expected")
    found: dict[str, Listed] = {}
    names_bytes = 0
    tar = Tar(source, bytes_max)
    for member in tar:
        path = _path(member.name)
        # What came before at this path is replaced, by a folder too.
        found.pop(path, None)
        listed = _listed(member, tar, bytes_max - tar.bytes_left, found)
        if listed is None or path == ".":
            continue
        found[path] = listed
        names_bytes += len(path) + len(member.target)
        if len(found) > FILES_MAX or names_bytes > NAMES_BYTES_MAX:
            raise ArchiveTooLarge(f"more than {FILES_MAX} files, or {NAMES_BYTES_MAX >> 20} MiB of names")
    _no_file_is_a_folder(found)
    return found


def _path(name: str) -> str:
    path = posixpath.normpath(name)
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ArchiveRefused(f"{told(name)}: leaves the workspace")
    return path


def _listed(member: Member, tar: Tar, place: int, found: dict[str, Listed]) -> Listed | None:
    match member.kind:
        case "file":
            digest = hashlib.sha256()
            while data := tar.read(_READ_BYTES):
                digest.update(data)
            mode = "100755" if member.mode & 0o100 else "100644"
            return mode, member.size, digest.hexdigest(), place
        case "symlink" if member.target:
            return "120000", member.target
        case "hardlink":
            return found.get(_path(member.target))
        case _:
            return None


def _no_file_is_a_folder(found: dict[str, Listed]) -> None:
    checked: set[str] = set()
    for path in found:
        above = path.rpartition("/")[0]
        while above and above not in checked:
            if above in found:
                raise ArchiveRefused(f"{told(path)}: below {told(above)}, which is no folder")
            checked.add(above)
            above = above.rpartition("/")[0]

"""The files of a source or a workspace as git sees them: paths with mode and content, without folders."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

from chorus.archives import confined

Mode = Literal["100644", "100755", "120000"]
LINK: Mode = "120000"
_READ_BYTES = 256 * 1024
# Links that are followed on one way, as Linux does (path_resolution(7)).
_LINKS_MAX: Final = 40


class Place(NamedTuple):
    """Where content lies in a file on disk, which has to stay while it may be read."""

    path: Path
    offset: int


@dataclass(frozen=True, slots=True)
class File:
    """A file, or a link, whose content is its target. Two are equal when mode and content are."""

    mode: Mode
    sha256: str
    size: int
    content: bytes | Place = field(compare=False, repr=False)

    @classmethod
    def of(cls, mode: Mode, content: bytes) -> File:
        """A file that is held in memory."""
        return cls(mode, hashlib.sha256(content).hexdigest(), len(content), content)

    def pieces(self) -> Iterator[bytes]:
        """The content, a piece at a time. Raises OSError, also when the file on disk has become shorter."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.path.open("rb") as file:
            file.seek(self.content.offset)
            left = self.size
            while left:
                piece = file.read(min(left, _READ_BYTES))
                if not piece:
                    raise OSError(f"{self.content.path} is shorter than it was")
                left -= len(piece)
                yield piece

    def read(self) -> bytes:
        """The whole content. Raises OSError."""
        return b"".join(self.pieces())

    def blob_id(self) -> str:
        """The name that git gives the content, 40 hexadecimal digits. Raises OSError."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


# Stands for a file that does not go into a patch: it is named there, and its content is not needed. Told by
# its identity, as other files may be empty too.
NOT_FETCHED: Final = File.of("100644", b"")

# By paths with `/` between names; bytes that are no UTF-8 are surrogates. No file is another one's folder.
Tree = Mapping[str, File]


async def tree_of_tar(path: Path) -> Tree:
    """The tree of a tar that is not compressed; contents are read from it when they are needed.

    Raises ArchiveRefused, ArchiveTooLarge, OSError.
    """
    tree: dict[str, File] = {}
    for name, listed in (await confined.index(path)).items():
        if len(listed) == 2:
            tree[name] = File.of(LINK, listed[1].encode("utf-8", "surrogateescape"))
        else:
            mode, size, sha256, offset = listed
            tree[name] = File("100755" if mode == "100755" else "100644", sha256, size, Place(path, offset))
    return tree


def folders_of(path: str) -> Iterator[str]:
    """The folders that a path lies in, the innermost first."""
    while path := path.rpartition("/")[0]:
        yield path


def leads_out(path: str, target: bytes) -> bool:
    """Whether a relative link, read without following others, leads out of the tree."""
    told = target.decode("utf-8", "surrogateescape")
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), told))
    return not told.startswith("/") and (end == ".." or end.startswith("../"))


def loops(path: str, tree: Tree) -> bool:
    """Whether a link, and those that it leads to in this tree, lead round and round."""
    left, done, links = path.split("/"), list[str](), 0
    while left:
        name = left.pop(0)
        if name == "..":
            done = done[:-1]
        elif name not in ("", "."):
            done.append(name)
            file = tree.get("/".join(done))
            if file is not None and file.mode == LINK:
                links += 1
                target = file.read().decode("utf-8", "surrogateescape")
                if target.startswith("/"):
                    return False
                if links > _LINKS_MAX:
                    return True
                done, left = done[:-1], [*target.split("/"), *left]
    return False

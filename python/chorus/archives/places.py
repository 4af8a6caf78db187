"""What lies where while an archive is unpacked: none is taken that could not be unpacked whole. Pure."""

from __future__ import annotations

from chorus.archives.errors import ArchiveRefused, told

# What Linux file systems hold as one name.
PART_BYTES_MAX = 255

_EMPTY_FOLDER = 1
_FOLDER = 2
_FILE = 3
_LINK = 4


class Places:
    """The kinds of things by their real paths.

    Paths are kept as their hashes, as there may be a million: two that are taken for one are less likely than
    a disk that fails.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, int] = {}

    def folder(self, path: str, name: str) -> None:
        """Puts a folder there, which is known to the archive as `name`; one that is there stays."""
        self._above(path, name)
        key = hash(path)
        if self._kinds.get(key) != _FOLDER:
            self._kinds[key] = _EMPTY_FOLDER

    def file(self, path: str, name: str) -> None:
        """Puts a file there, in place of what is there. Raises ArchiveRefused."""
        self._put(path, name, _FILE)

    def link(self, path: str, name: str) -> None:
        """Puts a symbolic link there, in place of what is there. Raises ArchiveRefused."""
        self._put(path, name, _LINK)

    def is_file(self, path: str) -> bool:
        """Whether a file lies there."""
        return self._kinds.get(hash(path)) == _FILE

    def _put(self, path: str, name: str, kind: int) -> None:
        self._above(path, name)
        key = hash(path)
        if self._kinds.get(key) == _FOLDER:
            raise ArchiveRefused(f"{told(name)}: in the place of a folder that is not empty")
        self._kinds[key] = kind

    def _above(self, path: str, name: str) -> None:
        """Makes the folders above a path, as programs that unpack do."""
        above, _, last = path.rpartition("/")
        _check_part(last, name)
        while above:
            key = hash(above)
            kind = self._kinds.get(key)
            if kind == _FOLDER:
                return  # and so are those above it
            if kind in (_FILE, _LINK):
                raise ArchiveRefused(f"{told(name)}: below {told(above)}, which is no folder")
            self._kinds[key] = _FOLDER
            above, _, last = above.rpartition("/")
            _check_part(last, name)


def _check_part(part: str, name: str) -> None:
    # The bytes need counting only where the characters do not settle it.
    if len(part) * 4 > PART_BYTES_MAX and len(part.encode("utf-8", "surrogateescape")) > PART_BYTES_MAX:
        raise ArchiveRefused(f"{told(name)}: a name of more than {PART_BYTES_MAX} bytes between slashes")

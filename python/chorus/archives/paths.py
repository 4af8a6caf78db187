"""Where names in an archive lead: nothing leaves the workspace, through links neither. Pure."""

from __future__ import annotations

import posixpath

from chorus.archives.errors import ArchiveRefused, told

_LINK_DEPTH_MAX = 40
# Links are remembered, to follow what comes after them; their names and targets together.
LINK_BYTES_MAX = 32 * 1024 * 1024
# What a folder that holds a link costs beside its name.
_FOLDER_BYTES = 512


class _Circle(ArchiveRefused):
    """Links that lead to each other."""


class _Elsewhere(ArchiveRefused):
    """Through an absolute link, to a place that is not the archive's."""


class _Folder:
    """A folder with links in it or below it."""

    __slots__ = ("folders", "links")

    def __init__(self) -> None:
        self.folders: dict[str, _Folder] = {}
        self.links: dict[str, str] = {}


class PathRules:
    """Follows links lexically, so that no path leads out through a link that came before it."""

    def __init__(self) -> None:
        # Links by the place where they really lie, links above them followed.
        self._root = _Folder()
        self._link_bytes = 0

    def clean(self, name: str) -> str:
        """The path below the workspace, links above it followed; raises ArchiveRefused."""
        if name.startswith("/"):
            raise ArchiveRefused(f"{told(name)}: an absolute path")
        if "\0" in name:
            raise ArchiveRefused(f"{told(name)}: a NUL in the path")
        if ".." in name.split("/"):
            raise ArchiveRefused(f"{told(name)}: leaves the workspace")
        folder, last = self._place(posixpath.normpath(name))
        return "/".join((*folder, last))

    def link(self, path: str, target: str, *, name: str = "") -> None:
        """Admits a symbolic link whose target lies in the workspace or is absolute; `name` is the archive's.

        An absolute one, or one that leads through such, means a place of the sandbox's own; nothing of the
        archive is written through it. One that leads in a circle leads nowhere out.
        """
        name = name or path
        if "\0" in target:
            raise ArchiveRefused(f"{told(name)}: a NUL in the target of a link")
        parts, link = self._place(path)
        folder = self._root
        for part in parts:
            if part not in folder.folders:
                folder.folders[part] = _Folder()
                self._link_bytes += len(part) + _FOLDER_BYTES
            folder = folder.folders[part]
        self._link_bytes += len(link) + len(target)
        if self._link_bytes > LINK_BYTES_MAX:
            raise ArchiveRefused(f"more than {LINK_BYTES_MAX} bytes of links")
        folder.links[link] = target
        try:
            self._resolve([*parts, link], path)
        except (_Circle, _Elsewhere):
            pass
        except ArchiveRefused:
            raise ArchiveRefused(f"{told(name)}: a link out of the workspace, to {told(target)}") from None

    def plain(self, path: str) -> None:
        """A file or folder takes the place of a link of the same name."""
        folder, name = self._folder(path)
        if folder is not None:
            folder.links.pop(name, None)

    def target(self, path: str) -> str | None:
        """The target of the link that lies there; None when it is no link."""
        folder, name = self._folder(path)
        return folder.links.get(name) if folder is not None else None

    def _folder(self, path: str) -> tuple[_Folder | None, str]:
        """The folder of a path, None for one without links in it or below it, and the path's last part."""
        parts, name = self._place(path)
        folder: _Folder | None = self._root
        for part in parts:
            folder = folder.folders.get(part) if folder is not None else None
        return folder, name

    def _place(self, path: str) -> tuple[list[str], str]:
        """The real folder of a path, and the path's last part."""
        *folder, name = path.split("/")
        return self._resolve(folder, path), name

    def _resolve(self, parts: list[str], name: str) -> list[str]:
        """Where a path really leads, below the workspace."""
        todo = parts[::-1]
        done: list[str] = []
        # The folders on the way; None below one without links, where nothing has to be looked up.
        folders: list[_Folder | None] = [self._root]
        hops = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    raise ArchiveRefused(f"{told(name)}: leaves the workspace")
                done.pop()
                folders.pop()
                continue
            folder = folders[-1]
            target = folder.links.get(part) if folder is not None else None
            if target is None:
                done.append(part)
                folders.append(folder.folders.get(part) if folder is not None else None)
                continue
            hops += 1
            if hops > _LINK_DEPTH_MAX:
                raise _Circle(f"{told(name)}: links in a circle")
            if target.startswith("/"):
                raise _Elsewhere(f"{told(name)}: leaves the workspace, by a link to {told(target)}")
            todo.extend(target.split("/")[::-1])
        return done

"""What of a folder is sent: all of it but what git ignores and what no archive can hold.

Work trees inside it (submodules, other repositories, additional work trees) are sent by their own rules.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chorus.ctl.ignored import Ignored, Place, is_work_tree, work_tree_of
from chorus.ctl.left_out import LeftOut
from chorus.ctl.problems import CtlError

IGNORED: Final = "ignored by git"
REPOSITORY: Final = "data of a version control system"
_REPOSITORIES: Final = frozenset({".hg", ".svn"})
_SPECIAL: Final = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(slots=True)
class Tree:
    """The paths below a folder, sorted so that a folder comes before what is in it, and what is left out.

    Names that are not UTF-8 have surrogates. A folder that is left out ends with a slash.
    """

    root: Path
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    # Ignore files count in work trees alone.
    unused_ignore_file: bool = False


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to be read. `rules` are those of the work tree that begins at `top`, or nothing ignores."""

    path: str
    top: str
    rules: Ignored | None


def walk(folder: Path) -> Tree:
    """Reads a folder. Raises CtlError when it is none."""
    try:
        tree = Tree(Path(os.path.realpath(folder)))
    except OSError as error:  # a relative one, and the present folder was removed
        raise CtlError(f"--dir {folder}: {error.strerror}") from None
    if not tree.root.is_dir():
        what = "not a folder" if os.path.lexists(tree.root) else "no such folder"
        raise CtlError(f"--dir {folder}: {what}")
    level = [_Folder("", "", _rules(tree.root))]
    # A level at a time, so that git is asked once for each.
    while level:
        level = _below(tree, level)
    tree.unused_ignore_file = ".gitignore" in tree.files and work_tree_of(tree.root) is None
    tree.folders.sort(key=_order)
    tree.files.sort(key=_order)
    tree.left_out.sort(key=lambda each: _order(each.file))
    return tree


def _rules(folder: Path) -> Ignored | None:
    top = work_tree_of(folder)
    if top is None:
        return None
    rules = Ignored(top, folder)
    # Who names an ignored folder means what is in it.
    return None if rules.whole_folder() else rules


def _below(tree: Tree, level: list[_Folder]) -> list[_Folder]:
    """Takes what is directly in these folders; returns the folders among it."""
    places: dict[Ignored | None, list[tuple[_Folder, Place]]] = {}
    for folder in level:
        for place in _read(tree, folder.path):
            places.setdefault(folder.rules, []).append((folder, place))
    deeper = []
    for rules, found in places.items():
        inside = [Place(place.path[len(folder.top) :], place.is_folder) for folder, place in found]
        ignored = rules.among(inside) if rules is not None else set()
        for (folder, place), seen in zip(found, inside, strict=True):
            if seen.path in ignored:
                tree.left_out.append(LeftOut(place.path + "/" * place.is_folder, IGNORED))
            elif not place.is_folder:
                tree.files.append(place.path)
            else:
                tree.folders.append(place.path)
                deeper.append(_entered(tree.root, place.path, folder))
    return deeper


def _entered(root: Path, path: str, above: _Folder) -> _Folder:
    if not is_work_tree(root / path):
        return _Folder(path, above.top, above.rules)
    return _Folder(path, f"{path}/", Ignored(root / path, root / path))


def _read(tree: Tree, folder: str) -> list[Place]:
    places = []
    try:
        with os.scandir(tree.root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if entry.name == ".git" or (is_folder and entry.name in _REPOSITORIES):
                    tree.left_out.append(LeftOut(path + "/" * is_folder, REPOSITORY))
                else:
                    places.append(Place(path, is_folder))
    except OSError as error:
        if not folder:
            raise CtlError(f"--dir {tree.root}: cannot be read: {error.strerror}") from None
        # The folder itself is sent, empty.
        tree.left_out.append(LeftOut(f"{folder}/", f"cannot be read: {error.strerror}"))
    return places


def special(mode: int) -> str | None:
    """What a file is that no archive for a task holds, by its mode."""
    return _SPECIAL.get(stat.S_IFMT(mode))


def _order(path: str) -> list[bytes]:
    return os.fsencode(path).split(b"/")

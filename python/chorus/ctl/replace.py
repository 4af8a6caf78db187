"""Changes files of a folder together: all of them, or none when one cannot be changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from chorus.ctl.trees import Entry


@dataclass(frozen=True, slots=True)
class Replaced:
    """What lies at a path before and after; None for nothing."""

    path: str
    before: Entry | None
    after: Entry | None


def replace(changes: Iterable[Replaced], new_root: Path, root: Path) -> None:
    """Makes the paths in `root` what they are in `new_root`.

    First all new content is written beside, then what was there is moved aside and the new moved to its
    place. Raises OSError, with the folder as it was.
    """
    listed = list(changes)
    aside = Path(tempfile.mkdtemp(prefix=".chorusctl-", dir=root))
    undo: list[Callable[[], object]] = []
    try:
        (aside / "new").mkdir()
        (aside / "old").mkdir()
        for number, change in enumerate(listed):
            if change.after is not None:
                _write(change, new_root / change.path, aside / "new" / str(number), root)
        for number, change in enumerate(listed):
            if change.before is not None:
                _move(root / change.path, aside / "old" / str(number), undo)
        for change in listed:
            if change.before is not None:
                _remove_empty_folders(root, new_root, change.path, undo)
        for number, change in enumerate(listed):
            if change.after is not None:
                _make_folders(root, change.path, undo)
                _move(aside / "new" / str(number), root / change.path, undo)
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(change: Replaced, source: Path, place: Path, root: Path) -> None:
    assert change.after is not None
    if change.after.kind == "link":
        place.symlink_to(change.after.content)
        return
    shutil.copyfile(source, place, follow_symlinks=False)
    mode = stat.S_IMODE(source.lstat().st_mode)
    if change.before is not None and change.before.kind == "file":
        # Who may read and write it stays; who may read may run it, where the patch says so.
        mode = stat.S_IMODE((root / change.path).lstat().st_mode)
        if change.after.executable != change.before.executable:
            mode = mode | (mode & 0o444) >> 2 if change.after.executable else mode & ~0o111
    place.chmod(mode)


def _move(from_: Path, to: Path, undo: list[Callable[[], object]]) -> None:
    from_.rename(to)
    undo.append(lambda: to.rename(from_))


def _remove_empty_folders(root: Path, new_root: Path, path: str, undo: list[Callable[[], object]]) -> None:
    """As git does, takes away the folders of a removed file that are empty then."""
    parent = Path(path).parent
    while parent != Path() and not (new_root / parent).is_dir():
        folder = root / parent
        mode = stat.S_IMODE(folder.lstat().st_mode) if folder.is_dir() else 0o755
        try:
            folder.rmdir()
        except OSError:
            return  # something that was not sent is in it
        undo.append(lambda folder=folder, mode=mode: (folder.mkdir(), folder.chmod(mode)))  # type: ignore[misc]
        parent = parent.parent


def _make_folders(root: Path, path: str, undo: list[Callable[[], object]]) -> None:
    missing = []
    parent = root / Path(path).parent
    while not os.path.lexists(parent):
        missing.append(parent)
        parent = parent.parent
    for folder in reversed(missing):
        folder.mkdir()

        def remove(folder: Path = folder) -> None:
            with contextlib.suppress(OSError):
                folder.rmdir()

        undo.append(remove)

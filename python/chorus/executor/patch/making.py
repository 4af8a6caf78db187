"""Makes the patch between a source and a workspace: chooses what goes in, and keeps it below its limit.

Blocks, as it reads contents; for a thread. No git is called: the task's own configuration, hooks and
attributes have no say.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chorus.executor.patch.ignoring import Ignored, built_folder
from chorus.executor.patch.lines import Budget
from chorus.executor.patch.names import gits_own, why_refused
from chorus.executor.patch.tree import LINK, NOT_FETCHED, File, Tree, folders_of, leads_out, loops
from chorus.executor.patch.writing import TooLong, changed, read_of, renamed
from chorus.wire.visible import visible

PATCH_BYTES_MAX: Final = 16 * 1024 * 1024
# A file that is larger is not compared; its content would have to be held whole.
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
# All contents, old and new, that one patch compares.
CONTENTS_BYTES_MAX: Final = 256 * 1024 * 1024
# Of comparing lines, each below a microsecond.
STEPS_MAX: Final = 5_000_000
# Names of what was left out; of more it is said how many.
LEFT_OUT_MAX: Final = 1000
_NAME_CHARS_MAX: Final = 1000

IGNORED: Final = "the source's ignore rules cover it"
BUILT: Final = "a build or cache folder that the source does not have"
LOOPED: Final = "git puts no folder in the place of a link that leads back to itself"
UNREAD: Final = "its content was not read"


class LeftOut(NamedTuple):
    """A file or folder, as it may be shown, that is not in the patch, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch in git's form. It is not `complete` when something was left out because there was too much.

    `paths` are those that it changes, of a file that moved both.
    """

    text: bytes
    files: int
    left_out: tuple[LeftOut, ...]
    complete: bool
    paths: tuple[str, ...] = ()


def make_patch(
    before: Tree, after: Tree, ignored: Ignored | None = None, limit_bytes: int = PATCH_BYTES_MAX
) -> Patch:
    """What turns `before` into `after`, without what `ignored` (the rules of `before`) and git leave out.

    Raises OSError when a content cannot be read.
    """
    return _Making(before, after, ignored or Ignored(before), limit_bytes).patch()


@dataclass(slots=True)
class _Part:
    """Changes that go in together or not at all: a file takes a folder's place when what was in it goes."""

    paths: list[str] = field(default_factory=list)
    texts: list[tuple[str, bytes]] = field(default_factory=list)
    size: int = 0
    why_not: str = ""


class _Making:
    def __init__(self, before: Tree, after: Tree, ignored: Ignored, limit_bytes: int) -> None:
        self._before, self._after, self._ignored = before, after, ignored
        self._limit = limit_bytes
        self._budget = Budget(STEPS_MAX)
        self._contents_left = CONTENTS_BYTES_MAX
        self._left_out: dict[str, str] = {}
        self._parts: dict[str, _Part] = {}
        # The parts by size, the largest first; a part that has grown is in it again.
        self._largest: list[tuple[int, str]] = []
        self._size = 0

    def patch(self) -> Patch:
        paths = self._chosen()
        part_of = self._together(paths)
        moved = self._renames(path for path in paths if path not in part_of)
        sources = set(moved.values())
        for path in paths:
            if path in sources:
                continue
            key = part_of.get(path, path)
            if (part := self._parts.get(key)) is None:
                looped = path in part_of and self._was_a_loop(key)
                part = self._parts[key] = _Part(why_not=LOOPED if looped else "")
            part.paths += [path, moved[path]] if path in moved else [path]
            if not part.why_not:
                self._write(key, path, moved.get(path))
        texts = sorted(text for part in self._parts.values() for text in part.texts)
        too_much = {
            path: part.why_not for part in self._parts.values() if part.why_not for path in part.paths
        }
        return Patch(
            b"".join(text for _, text in texts),
            len(texts),
            _told({**too_much, **self._left_out}),
            complete=not too_much,
            paths=tuple(sorted(path for part in self._parts.values() if part.texts for path in part.paths)),
        )

    # ---- what goes in -----------------------------------------------------------------------------

    def _chosen(self) -> list[str]:
        """The paths that differ and belong into the patch, in order."""
        before, after = self._before, self._after
        had = {folder for path in before for folder in folders_of(path)}
        chosen: list[str] = []
        kept: set[str] = set()
        for path in sorted(path for path in {*before, *after} if before.get(path) != after.get(path)):
            name, why = self._why_not(path, had)
            if why:
                self._left_out.setdefault(name, why)
                kept |= {path} & before.keys()
            else:
                chosen.append(path)
        # What stays as it was may be in the way.
        above = {folder for path in kept for folder in folders_of(path)}
        fits = []
        for path in chosen:
            if path in after and (path in above or not kept.isdisjoint(folders_of(path))):
                self._left_out[path] = "something that is left out is in its place"
            else:
                fits.append(path)
        return fits

    def _why_not(self, path: str, had: set[str]) -> tuple[str, str]:
        """What is left out with a path (it, or a folder that it lies in), and why; no reason: it goes in."""
        if why := why_refused(path):
            return gits_own(path) or path, why
        file = self._after.get(path)
        if file is not None and file.mode == LINK:
            if leads_out(path, file.read()):
                return path, "a link out of the workspace"
            if path.rpartition("/")[2].lower() == ".gitmodules":
                return path, "git takes no link of this name"
        if path not in self._before:
            folder = built_folder(path, self._after)
            if folder is not None and folder not in had:
                return folder, BUILT
        covered = self._ignored.covering(path)
        # A file that was sent counts as tracked, and what is tracked is not ignored, but for what tools make.
        if covered is not None and (path not in self._before or built_folder(path, self._before) is not None):
            return covered, IGNORED
        # Whoever fetched the tree took it for one of the above.
        return (path, UNREAD) if file is NOT_FETCHED else ("", "")

    def _together(self, paths: list[str]) -> dict[str, str]:
        """The part of each change where a file takes a folder's place or a folder a file's."""
        made = [path for path in paths if path not in self._before]
        gone = [path for path in paths if path not in self._after]
        places = {folder for path in gone for folder in folders_of(path)}.intersection(made)
        places |= {folder for path in made for folder in folders_of(path)}.intersection(gone)
        part_of = {}
        for path in paths if places else ():
            for place in (path, *folders_of(path)):
                if place in places:
                    part_of[path] = place  # the outermost is the last
        return part_of

    def _was_a_loop(self, path: str) -> bool:
        """Whether a link was there that the system follows no farther: git then finds nothing below it."""
        file = self._before.get(path)
        return file is not None and file.mode == LINK and loops(path, self._before)

    def _renames(self, paths: Iterable[str]) -> dict[str, str]:
        """The old paths, by the new ones, of files that only moved."""
        gone: dict[tuple[str, bool], list[str]] = {}
        made = []
        for path in paths:
            if path not in self._after:
                gone.setdefault(_content(self._before[path]), []).append(path)
            elif path not in self._before and self._after[path].size:
                made.append(path)
        moved = {}
        for path in made:
            if old := gone.get(_content(self._after[path])):
                name = path.rpartition("/")[2]
                chosen = next((each for each in old if each.rpartition("/")[2] == name), old[0])
                old.remove(chosen)
                moved[path] = chosen
        return moved

    # ---- writing it -------------------------------------------------------------------------------

    def _write(self, key: str, path: str, source: str | None) -> None:
        part = self._parts[key]
        before, after = self._before.get(path), self._after.get(path)
        if source is not None and after is not None:
            text = renamed(source, self._before[source], path, after)
        else:
            if after is not None and max(after.size, before.size if before else 0) > FILE_BYTES_MAX:
                return self._drop(part, f"it is larger than {FILE_BYTES_MAX >> 20} MiB")
            self._contents_left -= read_of(before, after)
            if self._contents_left < 0:
                return self._drop(part, f"more than {CONTENTS_BYTES_MAX >> 20} MiB would have to be compared")
            try:
                text = changed(path, before, after, self._budget, self._limit)
            except TooLong:
                return self._drop(part, self._too_large)
        part.texts.append((path, text))
        part.size += len(text)
        self._size += len(text)
        heapq.heappush(self._largest, (-part.size, key))
        while self._size > self._limit:
            size, largest = heapq.heappop(self._largest)
            if self._parts[largest].size == -size:
                self._drop(self._parts[largest], self._too_large)
        return None

    @property
    def _too_large(self) -> str:
        return f"the patch would be larger than {self._limit} bytes"

    def _drop(self, part: _Part, why: str) -> None:
        self._size -= part.size
        part.texts, part.size, part.why_not = [], 0, why


def _content(file: File) -> tuple[str, bool]:
    return file.sha256, file.mode == LINK


def _told(left_out: dict[str, str]) -> tuple[LeftOut, ...]:
    told: list[LeftOut] = []
    for path, why in left_out.items():
        if len(told) == LEFT_OUT_MAX:
            told.append(LeftOut("", f"{len(left_out) - LEFT_OUT_MAX} more were left out"))
            break
        name = visible(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
        told.append(LeftOut(name if len(name) <= _NAME_CHARS_MAX else f"{name[:_NAME_CHARS_MAX]}…", why))
    return tuple(told)

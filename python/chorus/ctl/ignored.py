"""What git would leave out of a work tree: git is asked, and where it does not answer its files are read.

Git refuses the repositories of other users, and may be missing or unable to read this one. The rules are the
same either way: ignore files at every level, `info/exclude`, the user's own, and nothing that is tracked.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from chorus.archives.ignore_file import patterns_of

if TYPE_CHECKING:
    from dulwich.ignore import Pattern

# Variables that make git look at another repository than the one that is asked about, or read names
# otherwise; hooks of git set some of them.
_NOT_FOR_GIT: Final = frozenset(
    {
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE"),
        *("GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_WORK_TREE", "GIT_CEILING_DIRECTORIES"),
        *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
    }
)
# A larger ignore file is none.
_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_POINTER: Final = b"gitdir:"


class Place(NamedTuple):
    """A path below the folder that is looked at; names that are not UTF-8 have surrogates."""

    path: str
    is_folder: bool


class GitSilent(Exception):
    """Git is missing, or does not answer for this folder."""


class Ignored:
    """The ignore rules of one work tree, for a folder in it."""

    def __init__(self, tree: Path, folder: Path) -> None:
        """`tree` is the top of the work tree, `folder` is in it; both without links on the way."""
        self._tree, self._folder = tree, folder
        self._rules: _Git | _Files
        try:
            self._rules = _Git(tree, folder)
        except GitSilent:
            self._rules = _Files(tree, folder)

    def among(self, places: list[Place]) -> set[str]:
        """The paths that are ignored: neither tracked nor folders with something tracked in them."""
        try:
            return self._rules.among(places)
        except GitSilent:
            self._rules = _Files(self._tree, self._folder)
            return self._rules.among(places)

    def whole_folder(self) -> bool:
        """Whether the folder itself is ignored and nothing in it is tracked."""
        try:
            return self._rules.whole_folder()
        except GitSilent:
            self._rules = _Files(self._tree, self._folder)
            return self._rules.whole_folder()


def is_work_tree(folder: Path) -> bool:
    """Whether a work tree begins here: a repository's, a submodule's or an additional one."""
    marker = folder / ".git"
    try:
        mode = marker.stat().st_mode
    except OSError:
        return False
    try:
        return stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and any(marker.iterdir()))
    except OSError:
        return True  # it cannot be read, and is there


def work_tree_of(folder: Path) -> Path | None:
    """The top of the work tree that a folder lies in; None for one in no work tree."""
    for place in (folder, *folder.parents):
        if place.name == ".git":
            return None
        if is_work_tree(place):
            return place
    return None


class _Git:
    """Asks git."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self._tree, self._folder = tree, folder
        top = self._ask(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")
        if os.path.realpath(os.fsdecode(top)) != str(tree):
            raise GitSilent
        listed = self._ask(folder, "ls-files", "--cached", "-z")
        self._tracked = _with_folders(os.fsdecode(path) for path in listed.split(b"\0"))

    def among(self, places: list[Place]) -> set[str]:
        asked = [place.path for place in places if place.path not in self._tracked]
        return self._check([f"./{path}" for path in asked], self._folder)

    def whole_folder(self) -> bool:
        if self._tracked or self._folder == self._tree:
            return False
        # From above, so that its own ignore file, which is about what is in it, does not count.
        return bool(self._check([f"./{self._folder.relative_to(self._tree)}"], self._tree))

    def _check(self, paths: list[str], folder: Path) -> set[str]:
        if not paths:
            return set()
        # What is tracked is known already; comparing each path with the whole index would take git long.
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        asked = ("check-ignore", "--no-index", "-z", "--stdin")
        found = self._ask(folder, *asked, given=given, codes=(0, 1))
        return {os.fsdecode(path).removeprefix("./") for path in found.split(b"\0") if path}

    def _ask(self, folder: Path, *words: str, given: bytes = b"", codes: tuple[int, ...] = (0,)) -> bytes:
        command = ["git", "-c", "core.fsmonitor=false", *words]
        env = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_GIT}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**env, "GIT_OPTIONAL_LOCKS": "0"},
                input=given,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise GitSilent from error
        if done.returncode not in codes:
            raise GitSilent
        return done.stdout


class _Files:
    """Reads git's files."""

    def __init__(self, tree: Path, folder: Path) -> None:
        relative = folder.relative_to(tree)
        self._tree, self._prefix = tree, "" if relative == Path() else f"{relative}/"
        # Folders that are ignored, but for what is tracked in them.
        self._ignored: set[str] = set()
        self._read: dict[str, list[Pattern]] = {}
        own, shared = _git_folders(tree)
        self._shared: list[list[Pattern]] = [
            _patterns(path) for path in (shared / "info" / "exclude", _users_own()) if path is not None
        ]
        self._tracked = _with_folders(_tracked(own / "index"))
        if self._prefix:
            for above in (*reversed(list(relative.parents)[:-1]), relative):
                self._decide(Place(str(above), True))

    def among(self, places: list[Place]) -> set[str]:
        found = set()
        for path, is_folder in places:
            whole = self._prefix + path
            if self._decide(Place(whole, is_folder)) and whole not in self._tracked:
                found.add(path)
        return found

    def whole_folder(self) -> bool:
        path = self._prefix.removesuffix("/")
        return bool(path) and self._decide(Place(path, True)) and path not in self._tracked

    def _decide(self, place: Place) -> bool:
        """By the deepest ignore file that says something; what is in an ignored folder is ignored."""
        above = place.path.rpartition("/")[0]
        ignored = above in self._ignored or self._matches(place)
        if ignored and place.is_folder:
            self._ignored.add(place.path)
        return ignored

    def _matches(self, place: Place) -> bool:
        parts = place.path.split("/")
        for depth in range(len(parts) - 1, -1, -1):
            patterns = self._of_folder("/".join(parts[:depth]))
            verdict = _verdict(patterns, "/".join(parts[depth:]), place.is_folder)
            if verdict is not None:
                return verdict
        for patterns in self._shared:
            verdict = _verdict(patterns, place.path, place.is_folder)
            if verdict is not None:
                return verdict
        return False

    def _of_folder(self, folder: str) -> list[Pattern]:
        if folder not in self._read:
            self._read[folder] = _patterns(self._tree / folder / ".gitignore", links=False)
        return self._read[folder]


def _with_folders(paths: Iterable[str]) -> set[str]:
    """The paths, and all folders that they lie in."""
    found: set[str] = set()
    for path in paths:
        # A folder of a sparse index ends with a slash.
        path = path.removesuffix("/")
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found


def _git_folders(tree: Path) -> tuple[Path, Path]:
    """Where a work tree has its index, and what it shares with the repository's other work trees."""
    own = tree / ".git"
    with contextlib.suppress(OSError):
        pointer = own.read_bytes()
        if pointer.startswith(_POINTER):
            own = tree / os.fsdecode(pointer.removeprefix(_POINTER).strip())
    with contextlib.suppress(OSError):
        return own, own / os.fsdecode((own / "commondir").read_bytes().strip())
    return own, own


def _users_own() -> Path | None:
    """The user's own ignore file."""
    try:
        asked = ["git", "config", "--global", "--get", "--type=path", "core.excludesFile"]
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
        if done.returncode == 0:
            return Path(os.fsdecode(done.stdout.removesuffix(b"\n")))
    except OSError:
        pass
    if settings := os.environ.get("XDG_CONFIG_HOME"):
        return Path(settings, "git", "ignore")
    home = os.environ.get("HOME")
    return Path(home, ".config", "git", "ignore") if home else None


def _tracked(index: Path) -> list[str]:
    """The paths of an index; none of one that cannot be read."""
    from dulwich.index import Index
    from dulwich.object_format import SHA1, SHA256

    for format in (SHA1, SHA256):
        # It may be anybody's file, and damaged in any way.
        with contextlib.suppress(Exception):
            return [os.fsdecode(path) for path in Index(str(index), object_format=format)]
    return []


def _patterns(path: Path, *, links: bool = True) -> list[Pattern]:
    """The patterns of an ignore file, none of one that is not there or cannot be read."""
    # A FIFO of that name must not be waited for.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError:
        return []
    if len(content) > _FILE_BYTES_MAX:
        return []
    from dulwich.ignore import Pattern
    from dulwich.wildmatch import MalformedPattern

    patterns = []
    for line in patterns_of(content):
        # Git passes over a malformed pattern too.
        with contextlib.suppress(MalformedPattern, re.error):
            patterns.append(Pattern(_with_plain_slashes(line)))
    return patterns


def _with_plain_slashes(pattern: bytes) -> bytes:
    """The pattern without backslashes before slashes, which the library takes for names that end with one.

    Git takes such a slash for one that stands in the path: no path begins with it, and `**` before it is at
    least one folder.
    """
    body = pattern.removeprefix(b"!")
    if body.startswith(b"\\/"):
        return b""
    body = re.sub(rb"(^|/)\*\*+\\/", rb"\1*/**/", body)
    body = re.sub(rb"\\(.)", lambda pair: b"/" if pair[1] == b"/" else pair[0], body, flags=re.DOTALL)
    return pattern[: pattern.startswith(b"!")] + body


def _verdict(patterns: list[Pattern], path: str, is_folder: bool) -> bool | None:
    """Whether the last pattern that matches ignores; None when none does."""
    name = os.fsencode(path)
    for pattern in reversed(patterns):
        if pattern.matches(name, is_folder):
            return pattern.is_exclude
    return None

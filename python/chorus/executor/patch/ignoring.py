"""What does not belong into a patch: files that ignore rules cover, build and cache folders. Pure.

The rules are those of the `.gitignore` files of one tree, as git reads them. One automaton matches all
patterns together, so that no pattern takes long, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chorus.archives.ignore_file import patterns_of
from chorus.executor.globs import Globs, TooMuchWork
from chorus.executor.patch.tree import LINK, Tree, folders_of

# Folders that tools make and make again; one that the source has is the source's own.
BUILT: Final = frozenset(
    {
        *("__pycache__", ".venv", ".tox", ".nox", ".eggs", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
        *(".hypothesis", ".ipynb_checkpoints", ".pytype", ".cache"),
        *("node_modules", "bower_components", ".npm", ".pnpm-store", ".parcel-cache", ".turbo"),
        *(".next", ".nuxt", ".nyc_output", ".svelte-kit"),
        *(".gradle", ".m2", ".ccache"),
    }
)
# Names that also mean other things: such a folder is a build's where this file lies beside it.
_BUILT_BESIDE: Final = {
    "target": {"Cargo.toml", "pom.xml", "build.sbt"},
    "build": {
        *("pyproject.toml", "setup.py", "setup.cfg", "CMakeLists.txt", "meson.build"),
        *("build.gradle", "build.gradle.kts", "binding.gyp", "package.json"),
    },
    "dist": {"pyproject.toml", "setup.py", "setup.cfg", "package.json"},
}
_BUILT_ENDINGS: Final = (".egg-info", ".dist-info")
# Lies at the top of a virtual environment of Python, whatever its name.
_ENVIRONMENT: Final = "pyvenv.cfg"

# All ignore files of a tree, and the patterns in them with the folders that they are for.
_FILES_BYTES_MAX: Final = 1024 * 1024
_PATTERNS_CHARS_MAX: Final = 256 * 1024
# Each below a microsecond; a few hundred patterns and thousands of new files need some 100,000.
_STEPS_MAX: Final = 5_000_000
# None begins with a sign that means something else at the beginning of a set.
_CLASSES: Final = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "blank": " \t", "cntrl": "\1-\x1f\x7f",
    "digit": "0-9", "graph": "\"-~!", "lower": "a-z", "print": " -~", "punct": ":-@!-.\\[-`{-~",
    "space": " \t\n\r", "upper": "A-Z", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class Ignored:
    """The ignore rules of a tree as it was sent. For one thread at a time."""

    def __init__(self, tree: Tree) -> None:
        """Raises OSError when a rule file cannot be read."""
        # By the glob that the automaton knows it by: whether it ignores, and whether only folders.
        self._rules: list[tuple[bool, bool]] = []
        self._numbers: dict[str, list[int]] = {}
        left, chars_left = _FILES_BYTES_MAX, _PATTERNS_CHARS_MAX
        # Those of inner folders come later, as the last that matches decides.
        named = (path for path in tree if path == ".gitignore" or path.endswith("/.gitignore"))
        for path in sorted(named, key=lambda path: (path.count("/"), path)):
            file = tree[path]
            left -= file.size
            if file.mode == LINK or left < 0:
                continue
            folder = path.removesuffix(".gitignore")
            for pattern in patterns_of(file.read()):
                glob, ignores, folders_only = _glob(folder, pattern.decode("utf-8", "surrogateescape"))
                chars_left -= len(glob)
                if not glob or chars_left < 0:
                    continue
                self._numbers.setdefault(glob, []).append(len(self._rules))
                self._rules.append((ignores, folders_only))
        self._globs = Globs(
            self._numbers,
            steps_max=_STEPS_MAX,
            alternatives_max=len(self._numbers),
            alternatives_chars_max=_PATTERNS_CHARS_MAX,
        )
        self._folders: dict[str, bool] = {}

    def covering(self, path: str) -> str | None:
        """The outermost ignored folder that a file lies in, or the file itself; None for neither."""
        try:
            for folder in reversed(list(folders_of(path))):
                if folder not in self._folders:
                    self._folders[folder] = self._decide(folder, is_folder=True)
                if self._folders[folder]:
                    return folder
            return path if self._decide(path, is_folder=False) else None
        except TooMuchWork:
            return None

    def _decide(self, path: str, *, is_folder: bool) -> bool:
        fitting = [
            number
            for glob in self._globs.naming(path)
            for number in self._numbers[glob]
            if is_folder or not self._rules[number][1]
        ]
        return bool(fitting) and self._rules[max(fitting)][0]


def built_folder(path: str, tree: Tree) -> str | None:
    """The build or cache folder that a file lies in, the outermost; None when it lies in none.

    `tree` says what lies beside a folder.
    """
    for folder in reversed(list(folders_of(path))):
        above, _, name = folder.rpartition("/")
        beside = f"{above}/" if above else ""
        if (
            name in BUILT
            or name.endswith(_BUILT_ENDINGS)
            or any(f"{beside}{file}" in tree for file in _BUILT_BESIDE.get(name, ()))
            or f"{folder}/{_ENVIRONMENT}" in tree
        ):
            return folder
    return None


def _glob(folder: str, pattern: str) -> tuple[str, bool, bool]:
    """A pattern of the ignore file of a folder (empty or with a slash at its end) as a glob below the tree,
    whether it ignores, and whether only folders. The glob is empty for a pattern that fits nothing.
    """
    ignores = not pattern.startswith("!")
    if not ignores:
        pattern = pattern[1:]
    folders_only = pattern.endswith("/")
    body = pattern.rstrip("/") if folders_only else pattern
    anchored = "/" in body
    body = body.removeprefix("/")
    glob = "".join(_tokens(body)) if body else ""
    if not glob:
        return "", ignores, folders_only
    here = re.sub(r"[*?\[\]{}\\,]", r"\\\g<0>", folder)
    # What is in a folder is not the folder: `**` at the end fits at least one name.
    glob = re.sub(r"(^|/)\*\*$", r"\1**/*", glob)
    return f"{here}{'' if anchored else '**/'}{glob}", ignores, folders_only


def _tokens(pattern: str) -> Iterator[str]:
    """A pattern of git's as a glob of ours: braces are plain characters, and classes have names.

    A malformed one fits nothing: the parts are then none.
    """
    parts: list[str] = []
    place = 0
    while place < len(pattern):
        sign = pattern[place]
        if sign == "\\":
            if place + 1 == len(pattern):
                return
            parts.append(pattern[place : place + 2])
            place += 2
        elif sign == "[":
            found = _set(pattern, place + 1)
            if found is None:
                return
            parts.append(found[0])
            place = found[1]
        elif sign == "*":
            stars = re.compile(r"\*+").match(pattern, place)
            assert stars is not None
            # Two cross folders only where they are a whole name.
            alone = pattern[place - 1 : place] in ("", "/") and pattern[stars.end() :][:1] in ("", "/")
            parts.append("**" if len(stars[0]) == 2 and alone else "*")
            place = stars.end()
        else:
            parts.append(f"\\{sign}" if sign in "{}," else sign)
            place += 1
    yield from parts


def _set(pattern: str, place: int) -> tuple[str, int] | None:
    """The set whose bracket was opened before a place, and where it ends; None when nothing closes it."""
    parts = ["["]
    if pattern[place : place + 1] in ("!", "^"):
        parts.append("!")
        place += 1
    first = place
    while place < len(pattern) and (pattern[place] != "]" or place == first):
        named = re.compile(r"\[:([a-z]*):\]").match(pattern, place)
        if named is not None:
            if named[1] not in _CLASSES:
                return None
            parts.append(_CLASSES[named[1]])
            place = named.end()
        elif pattern[place] == "\\":
            if place + 1 == len(pattern):
                return None
            parts.append(pattern[place : place + 2])
            place += 2
        else:
            parts.append(pattern[place])
            place += 1
    return ("".join((*parts, "]")), place + 1) if place < len(pattern) else None

"""Reads a patch in git's form for what it changes: files, and lines added and removed. Pure, total.

It is shown by this and never applied by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from chorus.wire.counts import counted

Change = Literal["changed", "new", "deleted", "renamed", "copied"]

_HUNK: Final = re.compile(rb"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
_ESCAPE: Final = re.compile(rb'\\(?:([0-3][0-7]{2})|([abtnvfr"\\]))')
_LETTERS: Final = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))


@dataclass(slots=True)
class PatchedFile:
    """One file of a patch. `path` is its new name; names that are not UTF-8 have surrogates."""

    path: str
    change: Change = "changed"
    added: int = 0
    removed: int = 0
    binary: bool = False


def patched_files(patch: bytes) -> list[PatchedFile]:
    """The files that a patch names, in its order. What cannot be read of it is passed over."""
    files: list[PatchedFile] = []
    # Lines that the present hunk has still to come.
    old = new = 0
    for line in patch.split(b"\n"):
        file = files[-1] if files else None
        if file is not None and (old > 0 or new > 0):
            mark = line[:1]
            if mark == b"+":
                file.added += 1
                new -= 1
            elif mark == b"-":
                file.removed += 1
                old -= 1
            elif mark != b"\\":
                old, new = old - 1, new - 1
        elif line.startswith(b"diff --git "):
            files.append(PatchedFile(_path(line.removeprefix(b"diff --git "))))
        elif file is not None:
            if hunk := _HUNK.match(line):
                old, new = (1 if count is None else int(count) for count in hunk.groups())
            else:
                _note(file, line)
    return files


def in_short(files: Iterable[PatchedFile]) -> str:
    """How much a patch changes."""
    listed = list(files)
    added, removed = sum(each.added for each in listed), sum(each.removed for each in listed)
    return f"{counted(len(listed), 'file')}, +{added} -{removed}"


def _note(file: PatchedFile, line: bytes) -> None:
    """Takes what a line of a file's head says."""
    if line.startswith(b"new file mode "):
        file.change = "new"
    elif line.startswith(b"deleted file mode "):
        file.change = "deleted"
    elif line.startswith(b"rename to "):
        file.change, file.path = "renamed", _name(line.removeprefix(b"rename to "))
    elif line.startswith(b"copy to "):
        file.change, file.path = "copied", _name(line.removeprefix(b"copy to "))
    elif line.startswith((b"GIT binary patch", b"Binary files ")):
        file.binary = True


def _path(names: bytes) -> str:
    """The new name in `a/NAME b/NAME`, quoted where it is odd. Where it is another, `rename to` says so."""
    if names.endswith(b'"'):
        start = names.rfind(b' "')
        return _name(names[start + 1 :]).removeprefix("b/")
    # Both are the same and have the same length.
    return _name(names[len(names) // 2 + 1 :]).removeprefix("b/")


def _name(text: bytes) -> str:
    text = text.removesuffix(b"\r")
    if len(text) >= 2 and text[:1] == text[-1:] == b'"':
        text = _ESCAPE.sub(_unescaped, text[1:-1])
    return text.decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, letter = match.groups()
    return bytes([int(octal, 8) if octal else _LETTERS[letter[0]]])

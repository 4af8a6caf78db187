"""How git writes paths in patches, and which paths it takes. Pure."""

from __future__ import annotations

import re
from typing import Final

# What git writes with a letter; other bytes that are not printable ASCII it writes in octal digits.
_LETTERS: Final = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}
_BYTES: Final = {letter: byte for byte, letter in _LETTERS.items()}
_QUOTED: Final = re.compile(rb'"((?:[^"\\\x00-\x1f\x7f-\xff]|\\(?:[abtnvfr"\\]|[0-3][0-7]{2}))*)"')
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2}|.)")
# Names that mean git's own folder here or on another system, where `git~1` is a short name of it.
_GITS_OWN: Final = re.compile(r"(?:\.git|git~1)[ .]*(?:[\\:].*)?", re.IGNORECASE | re.DOTALL)
# Linux opens no longer path, and has no longer names.
PATH_BYTES_MAX: Final = 4095
NAME_BYTES_MAX: Final = 255


def encoded(path: str) -> bytes:
    """The bytes of a path; surrogates stand for bytes that are no UTF-8."""
    return path.encode("utf-8", "surrogateescape")


def quoted(path: bytes) -> bytes:
    """The path as it stands in a patch: in quotation marks when a byte of it needs an escape."""
    if all(0x20 <= byte < 0x7F and byte not in _LETTERS for byte in path):
        return path
    return b'"%s"' % b"".join(map(_escaped, path))


def _escaped(byte: int) -> bytes:
    if letter := _LETTERS.get(byte):
        return f"\\{letter}".encode()
    return bytes([byte]) if 0x20 <= byte < 0x7F else b"\\%03o" % byte


def unquoted(text: bytes) -> bytes:
    """The path that `quoted` wrote so. Raises ValueError."""
    if not text.startswith(b'"'):
        return text
    found = _QUOTED.fullmatch(text)
    if found is None:
        raise ValueError("a quoted path that is malformed")
    return _ESCAPE.sub(_byte, found[1])


def _byte(escape: re.Match[bytes]) -> bytes:
    said = escape[1].decode()
    return bytes([int(said, 8) if len(said) == 3 else _BYTES[said]])


def gits_own(path: str) -> str | None:
    """The part of a path, from its beginning, that is git's own folder or file; None when there is none."""
    parts = path.split("/")
    for depth, part in enumerate(parts):
        if _GITS_OWN.fullmatch(part):
            return "/".join(parts[: depth + 1])
    return None


def why_refused(path: str) -> str:
    """Why a path out of a patch is not taken; empty for a plain one inside the tree."""
    if not path or path.startswith("/"):
        return "an absolute path"
    if "\0" in path:
        return "a NUL in the path"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "a path that leaves the tree or is not plain"
    if gits_own(path) is not None:
        return "git's own files"
    if len(encoded(path)) > PATH_BYTES_MAX or any(len(encoded(part)) > NAME_BYTES_MAX for part in parts):
        return f"a path of more than {PATH_BYTES_MAX} bytes, or {NAME_BYTES_MAX} between slashes"
    return ""

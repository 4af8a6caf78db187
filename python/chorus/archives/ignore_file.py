"""Reads the lines of git's ignore files. What the patterns mean is left to others. Pure."""

from __future__ import annotations

_UTF8_MARK = b"\xef\xbb\xbf"


def patterns_of(content: bytes) -> list[bytes]:
    """The patterns of an ignore file, without comments and without spaces at their ends."""
    patterns = []
    for line in content.removeprefix(_UTF8_MARK).split(b"\n"):
        line = _without_trailing_spaces(line.removesuffix(b"\r"))
        # Git matches nothing by one that ends with a lone backslash, also before the slash of a folder.
        if line and not line.startswith(b"#") and not _escapes_next(line.rstrip(b"/")):
            patterns.append(line)
    return patterns


def _without_trailing_spaces(line: bytes) -> bytes:
    while line.endswith(b" ") and not _escapes_next(line[:-1]):
        line = line[:-1]
    return line


def _escapes_next(line: bytes) -> bool:
    return (len(line) - len(line.rstrip(b"\\"))) % 2 == 1

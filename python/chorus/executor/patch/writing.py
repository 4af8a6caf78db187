"""Writes what became of one file in git's form. Pure but for reading contents.

Text is written as hunks with three lines of context, everything else as `GIT binary patch`.
"""

from __future__ import annotations

import base64
import zlib
from typing import Final

from chorus.executor.patch.lines import Budget, Change, changes
from chorus.executor.patch.names import encoded, quoted
from chorus.executor.patch.tree import LINK, File

_CONTEXT: Final = 3
# Files of more lines are written as binary ones: each line costs some 80 bytes while they are compared.
_LINES_MAX: Final = 400_000
# What is there to take a binary change back; git applies a patch without it.
_REVERSE_BYTES_MAX: Final = 1024 * 1024
# A deleted text is written line by line up to this size.
_DELETED_TEXT_BYTES_MAX: Final = 1024 * 1024
# Of one file, so that a costly one leaves some for the others.
_STEPS_OF_A_FILE: Final = 1_000_000
_NO_BLOB: Final = "0" * 40
_LINE_BYTES: Final = 52
_WINDOW: Final = 256 * 1024


class TooLong(Exception):
    """The part of the patch would be longer than the patch may be."""


def read_of(before: File | None, after: File | None) -> int:
    """How many bytes of content are held to write a change."""
    if after is None and before is not None and before.size > _DELETED_TEXT_BYTES_MAX:
        return 0
    return sum(file.size for file in (before, after) if file is not None)


def renamed(path: str, before: File, new_path: str, after: File) -> bytes:
    """A file that only changed its path, and perhaps its mode."""
    lines = _head(path, new_path)
    if before.mode != after.mode:
        lines += b"old mode %s\nnew mode %s\n" % (before.mode.encode(), after.mode.encode())
    name, new_name = quoted(encoded(path)), quoted(encoded(new_path))
    return lines + b"similarity index 100%%\nrename from %s\nrename to %s\n" % (name, new_name)


def changed(path: str, before: File | None, after: File | None, budget: Budget, bytes_max: int) -> bytes:
    """A file that is new, deleted (None) or other than before. Raises TooLong, OSError."""
    if before is not None and after is not None and (before.mode == LINK) != (after.mode == LINK):
        # A file in the place of a link is another thing.
        gone = changed(path, before, None, budget, bytes_max)
        return gone + changed(path, None, after, budget, bytes_max - len(gone))
    head = _head(path, path)
    mode = ""
    if before is None and after is not None:
        head += f"new file mode {after.mode}\n".encode()
    elif after is None and before is not None:
        head += f"deleted file mode {before.mode}\n".encode()
    elif before is not None and after is not None and before.mode != after.mode:
        head += f"old mode {before.mode}\nnew mode {after.mode}\n".encode()
        if before.sha256 == after.sha256:
            return head
    elif before is not None:
        mode = f" {before.mode}"
    ids = [file.blob_id() if file is not None else _NO_BLOB for file in (before, after)]
    head += f"index {ids[0]}..{ids[1]}{mode}\n".encode()
    return head + _content(path, before, after, budget, bytes_max)


def _head(path: str, new_path: str) -> bytes:
    return b"diff --git %s %s\n" % (quoted(b"a/" + encoded(path)), quoted(b"b/" + encoded(new_path)))


def _content(path: str, before: File | None, after: File | None, budget: Budget, bytes_max: int) -> bytes:
    if after is None and before is not None and before.size > _DELETED_TEXT_BYTES_MAX:
        return _binary(b"", None, bytes_max)
    old, new = (file.read() if file is not None else b"" for file in (before, after))
    if old == new:
        return b""  # an empty file came or went
    if not (_is_text(old) and _is_text(new)):
        return _binary(new, old, bytes_max)
    part = budget.part(_STEPS_OF_A_FILE)
    hunks = _hunks(lines_of(old), lines_of(new), part)
    budget.give_back(part)
    name_before = named(b"a/", path, there=before is not None)
    name_after = named(b"b/", path, there=after is not None)
    return b"--- %s\n+++ %s\n%s" % (name_before, name_after, hunks)


def named(letter: bytes, path: str, *, there: bool) -> bytes:
    """A file as the two lines before its hunks name it."""
    if not there:
        return b"/dev/null"
    # A tab ends a name with spaces, as other programs write a date behind it.
    name = letter + encoded(path)
    return quoted(name) + (b"\t" if b" " in name else b"")


def _is_text(content: bytes) -> bool:
    return b"\0" not in content and content.count(b"\n") <= _LINES_MAX


def lines_of(content: bytes) -> list[bytes]:
    """The lines with their ends; the last may have none."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _hunks(old: list[bytes], new: list[bytes], budget: Budget) -> bytes:
    written: list[bytes] = []
    group: list[Change] = []
    for change in changes(old, new, budget):
        if group and change.old_start - group[-1].old_end > 2 * _CONTEXT:
            written.append(_hunk(old, new, group))
            group = []
        group.append(change)
    written.append(_hunk(old, new, group))
    return b"".join(written)


def _hunk(old: list[bytes], new: list[bytes], group: list[Change]) -> bytes:
    lead = min(_CONTEXT, group[0].old_start)
    tail = min(_CONTEXT, len(old) - group[-1].old_end)
    start, end = group[0].old_start - lead, group[-1].old_end + tail
    new_start, new_end = group[0].new_start - lead, group[-1].new_end + tail
    written = [b"@@ -%s +%s @@\n" % (_range(start, end), _range(new_start, new_end))]
    here = start
    for change in group:
        written += [_line(b" ", line) for line in old[here : change.old_start]]
        written += [_line(b"-", line) for line in old[change.old_start : change.old_end]]
        written += [_line(b"+", line) for line in new[change.new_start : change.new_end]]
        here = change.old_end
    written += [_line(b" ", line) for line in old[here:end]]
    return b"".join(written)


def _range(start: int, end: int) -> bytes:
    # Lines count from 1; an empty range names the line before it.
    if start == end:
        return b"%d,0" % start
    return b"%d" % (start + 1) if end - start == 1 else b"%d,%d" % (start + 1, end - start)


def _line(sign: bytes, line: bytes) -> bytes:
    return sign + line if line.endswith(b"\n") else sign + line + b"\n\\ No newline at end of file\n"


def _binary(new: bytes, old: bytes | None, bytes_max: int) -> bytes:
    """The new content, and the old one to take the change back unless it is too long."""
    forward = _literal(new, bytes_max)
    reverse = b""
    if old is not None:
        try:
            reverse = _literal(old, min(_REVERSE_BYTES_MAX, bytes_max - len(forward)))
        except TooLong:
            reverse = b""
    return b"GIT binary patch\n" + forward + reverse


def _literal(content: bytes, bytes_max: int) -> bytes:
    packed = _deflated(content, bytes_max)
    lines = [b"literal %d" % len(content)]
    for place in range(0, len(packed), _LINE_BYTES):
        piece = packed[place : place + _LINE_BYTES]
        length = len(piece)
        sign = length + (64 if length <= 26 else 70)  # A to Z, then a to z
        lines.append(bytes([sign]) + base64.b85encode(piece, pad=True))
    return b"\n".join((*lines, b"", b""))


def _deflated(content: bytes, bytes_max: int) -> bytes:
    packer = zlib.compressobj()
    packed = bytearray()
    for place in range(0, len(content), _WINDOW):
        packed += packer.compress(content[place : place + _WINDOW])
        # As text it is a quarter longer.
        if len(packed) > bytes_max:
            raise TooLong
    return bytes(packed + packer.flush())

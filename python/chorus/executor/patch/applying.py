"""Applies patches of our own form to a tree, strictly: what is not exactly as the patch says is refused.

The text may be anybody's. Nothing is read from or written to a disk but contents of the tree.
"""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import dataclass
from typing import Final, cast

from chorus.executor.patch.making import CONTENTS_BYTES_MAX, FILE_BYTES_MAX
from chorus.executor.patch.names import encoded, quoted, unquoted, why_refused
from chorus.executor.patch.tree import LINK, File, Mode, Tree, folders_of, leads_out
from chorus.executor.patch.writing import lines_of, named
from chorus.wire.visible import visible

# A patch of ours has at most 16 MiB.
TEXT_BYTES_MAX: Final = 64 * 1024 * 1024
_MODES: Final = frozenset({b"100644", b"100755", b"120000"})
_NO_BLOB: Final = "0" * 40
_HUNK: Final = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_INDEX: Final = re.compile(rb"index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: (\d{6}))?")
_LITERAL: Final = re.compile(rb"literal (\d{1,10})")
_LINE_BYTES: Final = 52
_NAME_CHARS_MAX: Final = 200


class PatchRefused(Exception):
    """The patch is malformed, or not for this tree; the message names the file and the line of the patch."""


def apply_patch(tree: Tree, text: bytes) -> Tree:
    """The tree with the patch applied. Raises PatchRefused, OSError when a content cannot be read."""
    lines = _Lines(text)
    if len(text) > TEXT_BYTES_MAX:
        raise lines.refused(f"the patch has more than {TEXT_BYTES_MAX} bytes")
    applying = _Applying(tree, lines)
    while lines.more:
        applying.file()
    return applying.done()


class _Lines:
    """The lines of a patch, one at a time, without their ends."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._place = 0
        # Of the line that was read last.
        self.number = 0
        self.file = ""

    @property
    def more(self) -> bool:
        return self._place < len(self._text)

    def peek(self) -> bytes:
        """The next line; empty at the end."""
        end = self._text.find(b"\n", self._place)
        return self._text[self._place : end if end >= 0 else len(self._text)]

    def starts(self, word: bytes) -> bool:
        """Whether the next line begins so."""
        return self._text.startswith(word, self._place)

    def next(self) -> bytes:
        """Reads a line. Raises PatchRefused at the end, and for a line without its end."""
        self.number += 1
        end = self._text.find(b"\n", self._place)
        if end < 0:
            raise self.refused("the patch ends too early")
        line, self._place = self._text[self._place : end], end + 1
        return line

    def word(self, word: bytes) -> bytes:
        """Reads a line that begins so; returns what follows. Raises PatchRefused."""
        line = self.next()
        if not line.startswith(word):
            raise self.refused(f"a line that begins with {word.decode()!r} was expected")
        return line[len(word) :]

    def refused(self, why: str) -> PatchRefused:
        """The error for the line that was read last."""
        name = visible(self.file.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
        told = f"{name[:_NAME_CHARS_MAX] or 'the patch'}, line {self.number}"
        return PatchRefused(f"{told}: {why}")


@dataclass(slots=True)
class _Head:
    """What stands before the content of one file."""

    path: str
    mode: Mode | None = None
    old_mode: Mode | None = None
    made: bool = False
    deleted: bool = False
    source: str | None = None
    ids: tuple[str, str] | None = None


def _with_mode(file: File, mode: Mode | None) -> File:
    return File(mode or file.mode, file.sha256, file.size, file.content)


class _Applying:
    def __init__(self, tree: Tree, lines: _Lines) -> None:
        self._tree, self._lines = tree, lines
        self._gone: set[str] = set()
        self._new: dict[str, File] = {}
        self._contents_left = CONTENTS_BYTES_MAX

    def file(self) -> None:
        """Reads the part about one file. Raises PatchRefused, OSError."""
        lines = self._lines
        lines.file = ""
        head = self._head()
        if head.source is not None:
            moved = self._known(head.source)
            self._check_mode(head, moved)
            self._remove(head.source)
            self._add(head.path, _with_mode(moved, head.mode))
            return
        before = None if head.made else self._known(head.path)
        if before is not None:
            self._check_mode(head, before)
        content = self._content(head, before)
        if not head.made:
            self._remove(head.path)
        if head.deleted:
            if content:
                raise lines.refused("it is deleted, and something of it is left")
            return
        if before is not None and content is None:
            self._add(head.path, _with_mode(before, head.mode))
        elif head.mode is not None:
            self._add(head.path, File.of(head.mode, content or b""))

    def done(self) -> Tree:
        """The whole result. Raises PatchRefused when a file would be another one's folder."""
        tree = {path: file for path, file in self._tree.items() if path not in self._gone}
        tree.update(self._new)
        above = {folder for path in tree for folder in folders_of(path)}
        for path in self._new:
            self._lines.file = path
            if path in above or any(folder in tree for folder in folders_of(path)):
                raise self._lines.refused("a file is in the place of a folder")
        return tree

    # ---- one file ---------------------------------------------------------------------------------

    def _head(self) -> _Head:
        lines = self._lines
        names = lines.word(b"diff --git ")
        old_mode = mode = ids = source = None
        made = deleted = False
        if lines.starts(b"new file mode "):
            made, mode = True, self._mode(b"new file mode ")
        elif lines.starts(b"deleted file mode "):
            deleted, old_mode = True, self._mode(b"deleted file mode ")
        elif lines.starts(b"old mode "):
            old_mode, mode = self._mode(b"old mode "), self._mode(b"new mode ")
            if LINK in (old_mode, mode):
                raise lines.refused("a link does not become a file by its mode")
        if lines.starts(b"similarity index "):
            if made or deleted or lines.next() != b"similarity index 100%":
                raise lines.refused("only files that did not change otherwise are renamed")
            source, path = self._path(lines.word(b"rename from ")), self._path(lines.word(b"rename to "))
            self._same_names(names, source, path)
        else:
            path = self._one_name(names)
        lines.file = path
        if source is None and lines.starts(b"index "):
            found = _INDEX.fullmatch(lines.next())
            if found is None:
                raise lines.refused("an index line with two whole blob ids was expected")
            ids = (found[1].decode(), found[2].decode())
            if found[3] is not None:
                old_mode = mode = self._checked_mode(found[3])
        elif source is None and (made or deleted or mode is None):
            raise lines.refused("an index line was expected")
        return _Head(path, mode, old_mode, made, deleted, source, ids)

    def _mode(self, word: bytes) -> Mode:
        return self._checked_mode(self._lines.word(word))

    def _checked_mode(self, mode: bytes) -> Mode:
        if mode not in _MODES:
            raise self._lines.refused("a mode of 100644, 100755 or 120000 was expected")
        return cast(Mode, mode.decode())

    def _path(self, text: bytes) -> str:
        try:
            path = unquoted(text).decode("utf-8", "surrogateescape")
        except ValueError as error:
            raise self._lines.refused(str(error)) from None
        self._lines.file = path
        if why := why_refused(path):
            raise self._lines.refused(why)
        return path

    def _one_name(self, names: bytes) -> str:
        """The path of `a/path b/path`, both quoted or none."""
        half = names[: len(names) // 2]
        if names[len(half) :][:1] != b" " or not half.removeprefix(b'"').startswith(b"a/"):
            raise self._lines.refused("the same path twice, with a/ and b/ before it, was expected")
        quote = b'"' if half.startswith(b'"') else b""
        path = self._path(quote + half[len(quote) + 2 :])
        self._same_names(names, path, path)
        return path

    def _same_names(self, names: bytes, source: str, path: str) -> None:
        if names != b"%s %s" % (quoted(b"a/" + encoded(source)), quoted(b"b/" + encoded(path))):
            raise self._lines.refused("the paths of its first line are others")

    def _known(self, path: str) -> File:
        if path not in self._tree or path in self._gone:
            raise self._lines.refused("there is no such file")
        return self._tree[path]

    def _check_mode(self, head: _Head, before: File) -> None:
        if head.old_mode is not None and before.mode != head.old_mode:
            raise self._lines.refused(f"its mode is {before.mode}")

    def _remove(self, path: str) -> None:
        self._gone.add(path)

    def _add(self, path: str, file: File) -> None:
        if path in self._new or (path in self._tree and path not in self._gone):
            raise self._lines.refused("there is such a file already")
        if file.mode == LINK:
            target = file.read() if file.size <= FILE_BYTES_MAX else b""
            if not target or b"\0" in target or leads_out(path, target):
                raise self._lines.refused("a link without a target, or out of the tree")
        self._new[path] = file

    # ---- its content ------------------------------------------------------------------------------

    def _content(self, head: _Head, before: File | None) -> bytes | None:
        """The new content; None when only the mode changes."""
        lines = self._lines
        if head.ids is None:
            return None
        if before is not None and before.blob_id() != head.ids[0]:
            raise lines.refused("its content is not the one that the patch is for")
        if before is None and head.ids[0] != _NO_BLOB:
            raise lines.refused("a new file has no blob before")
        if lines.starts(b"GIT binary patch\n"):
            content = self._binary()
        elif lines.starts(b"--- "):
            self._names(head)
            content = self._hunks(self._old(before))
        else:
            content = b""
        expected = _NO_BLOB if head.deleted else File.of("100644", content).blob_id()
        if head.ids[1] != expected:
            raise lines.refused("its new content is not the one that the patch names")
        return content

    def _old(self, before: File | None) -> bytes:
        if before is None:
            return b""
        if before.size > FILE_BYTES_MAX:
            raise self._lines.refused(f"it has more than {FILE_BYTES_MAX} bytes")
        self._take(before.size)
        return before.read()

    def _take(self, size: int) -> None:
        self._contents_left -= size
        if self._contents_left < 0:
            raise self._lines.refused(f"the contents have more than {CONTENTS_BYTES_MAX} bytes")

    def _names(self, head: _Head) -> None:
        lines = self._lines
        old = lines.word(b"--- ")
        new = lines.word(b"+++ ")
        if old != named(b"a/", head.path, there=not head.made):
            raise lines.refused("the old path of its hunks is another")
        if new != named(b"b/", head.path, there=not head.deleted):
            raise lines.refused("the new path of its hunks is another")

    def _hunks(self, content: bytes) -> bytes:
        lines = self._lines
        old = lines_of(content)
        done: list[bytes] = []
        here = 0
        if not lines.starts(b"@@ "):
            raise lines.refused("a hunk was expected")
        while lines.starts(b"@@ "):
            found = _HUNK.fullmatch(lines.next())
            if found is None:
                raise lines.refused("the first line of a hunk is malformed")
            start, count, new_start, new_count = (int(each) if each else 1 for each in found.groups())
            # An empty range names the line before it.
            start, new_start = start - (count > 0), new_start - (new_count > 0)
            if not here <= start <= len(old):
                raise lines.refused("the hunk is out of order or beyond the end of the file")
            done += old[here:start]
            if new_start != len(done):
                raise lines.refused("the hunk is not where its first line says")
            here = self._hunk(old, start, count, new_count, done)
        done += old[here:]
        if any(not line.endswith(b"\n") for line in done[:-1]):
            raise lines.refused("a line without its end is not the last")
        return b"".join(done)

    def _hunk(self, old: list[bytes], here: int, count: int, new_count: int, done: list[bytes]) -> int:
        lines = self._lines
        while count or new_count:
            line = lines.next()
            sign, text = line[:1], line[1:] + b"\n"
            if lines.starts(b"\\ No newline at end of file\n"):
                lines.next()
                text = text[:-1]
            if sign not in (b" ", b"-", b"+"):
                raise lines.refused("a line of a hunk begins with a space, - or +")
            if sign != b"+":
                if not count or here >= len(old) or old[here] != text:
                    raise lines.refused("the file has another line here")
                here, count = here + 1, count - 1
            if sign != b"-":
                if not new_count:
                    raise lines.refused("the hunk has more lines than its first line says")
                self._take(len(text))
                done.append(text)
                new_count -= 1
        return here

    def _binary(self) -> bytes:
        self._lines.next()
        content = self._literal(keep=True)
        if self._lines.starts(b"literal "):
            self._literal(keep=False)
        return content

    def _literal(self, *, keep: bool) -> bytes:
        lines = self._lines
        found = _LITERAL.fullmatch(lines.next())
        size = int(found[1]) if found else 0
        if found is None or size > FILE_BYTES_MAX:
            raise lines.refused(f"a literal of at most {FILE_BYTES_MAX} bytes was expected")
        packed = bytearray()
        while line := lines.next():
            packed += self._packed(line)
        if not keep:
            return b""
        self._take(size)
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(bytes(packed), size + 1)
        except zlib.error as error:
            raise lines.refused(f"a literal that is damaged: {error}") from None
        if len(content) != size or not unpacker.eof or unpacker.unused_data:
            raise lines.refused("a literal of another size than it says")
        return content

    def _packed(self, line: bytes) -> bytes:
        sign = line[0]
        length = sign - 64 if 65 <= sign <= 90 else sign - 70 if 97 <= sign <= 122 else 0
        if not 0 < length <= _LINE_BYTES or len(line) != 1 + 5 * -(-length // 4):
            raise self._lines.refused("a line of a literal has another length than it says")
        try:
            return base64.b85decode(line[1:])[:length]
        except ValueError:
            raise self._lines.refused("a line of a literal is not base 85") from None

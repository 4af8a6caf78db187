"""What a model is shown of outputs and files, and how a passage of a file is replaced. Pure."""

from __future__ import annotations

import re
from typing import Final

from chorus.wire.counts import counted

# Of an output: its first and its last characters.
SHOWN_CHARS: Final = 20_000
_HALF_CHARS: Final = SHOWN_CHARS // 2
# A character takes at most four bytes.
_HALF_BYTES: Final = 4 * _HALF_CHARS
# Of a line in a view.
_LINE_CHARS: Final = 2_000
_MARK: Final = re.compile(r"\[REDACTED:[^\]\n]{1,64}\]")
# As many places of several are named.
_PLACES_MAX: Final = 20


class HeadAndTail:
    """Keeps the beginning and the end of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Takes the next piece."""
        room = _HALF_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        if len(self._tail) > 4 * _HALF_BYTES:
            self._cut()

    def text(self, file: str = "", unseen_bytes: int = 0) -> tuple[str, bool]:
        """What is shown, and whether it is all; `file` is what has the whole, `unseen_bytes` more was there
        that never came here.
        """
        self._cut()
        dropped = self._dropped + unseen_bytes
        if not dropped:
            whole = bytes(self._head + self._tail).decode("utf-8", "replace")
            if len(whole) <= SHOWN_CHARS:
                return whole, True
            head, tail = whole[:_HALF_CHARS], whole[-_HALF_CHARS:]
            left = f"{len(whole) - SHOWN_CHARS} characters"
        else:
            head = self._head.decode("utf-8", "replace")[:_HALF_CHARS]
            # It may begin in the midst of a character.
            tail = self._tail.decode("utf-8", "replace")[-_HALF_CHARS:]
            shown = len(head.encode("utf-8", "replace")) + len(tail.encode("utf-8", "replace"))
            left = f"about {max(0, len(self._head) + len(self._tail) + dropped - shown)} bytes"
        where = f"; the whole is in {file}" if file else ""
        return f"{head}\n[… {left} left out{where} …]\n{tail}", False

    def _cut(self) -> None:
        if (more := len(self._tail) - _HALF_BYTES) > 0:
            self._dropped += more
            del self._tail[:more]


def bounded(text: str) -> str:
    """A text as it is shown at most."""
    kept = HeadAndTail()
    kept.add(text.encode("utf-8", "replace"))
    return kept.text()[0]


def holds_mark(text: str) -> str:
    """The redaction mark in a text; "" when there is none."""
    found = _MARK.search(text)
    return found[0] if found else ""


def numbered(content: str, first: int, total: int) -> str:
    """Lines of a file with their numbers, as many as may be shown, and how to read on.

    `content` are the lines from number `first` on, `total` is how many the file has.
    """
    lines = content.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    width = len(str(first + len(lines)))
    shown: list[str] = []
    size = 0
    for number, line in enumerate(lines, first):
        cut = line if len(line) <= _LINE_CHARS else f"{line[:_LINE_CHARS]}[… {len(line) - _LINE_CHARS} more]"
        size += width + 2 + len(cut) + 1
        if size > SHOWN_CHARS - 200 and shown:
            break
        shown.append(f"{number:>{width}}\t{cut}")
    last = first + len(shown) - 1
    if not shown:
        return f"[the file has {counted(total, 'line')}]"
    if last < total:
        shown.append(f"[lines {first} to {last} of {total}; read on with first={last + 1}]")
    return "\n".join(shown)


def matches(output: str, cut: bool) -> str:
    """Lines of a search, long ones cut, as many as may be shown."""
    shown: list[str] = []
    size = 0
    lines = output.splitlines()
    for line in lines:
        line = line if len(line) <= 400 else f"{line[:400]}…"
        size += len(line) + 1
        if size > SHOWN_CHARS - 200:
            break
        shown.append(line)
    if len(shown) < len(lines) or cut:
        shown.append(f"[only the first {counted(len(shown), 'line')}; search for less, or in a folder]")
    return "\n".join(shown)


class EditRefused(Exception):
    """The passage does not stand in the file exactly once; the message is for the model."""


def edited(content: str, old: str, new: str) -> str:
    """The content with a passage replaced that stands in it once. Raises EditRefused."""
    if not old:
        raise EditRefused("the old text is empty; give the exact passage that is to be replaced")
    if old == new:
        raise EditRefused("the old text and the new one are the same")
    places: list[int] = []
    at = content.find(old)
    while at >= 0:
        places.append(at)
        # Matches may overlap: each is a place that could be meant.
        at = content.find(old, at + 1)
    if len(places) == 1:
        return content[: places[0]] + new + content[places[0] + len(old) :]
    if not places:
        raise EditRefused(f"no match: the file does not have that text{_near(content, old)}")
    lines = [str(content.count("\n", 0, place) + 1) for place in places[:_PLACES_MAX]]
    more = f" and {len(places) - _PLACES_MAX} more" if len(places) > _PLACES_MAX else ""
    raise EditRefused(
        f"{len(places)} matches, in lines {', '.join(lines)}{more}; give more of the text around one"
    )


def _near(content: str, old: str) -> str:
    """Where the text stands if spaces are not looked at."""
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")
    if not wanted:
        return ""
    found = [number for number, line in enumerate(content.splitlines(), 1) if line.strip() == wanted]
    if not found:
        return "; read it again"
    named = ", ".join(str(number) for number in found[:_PLACES_MAX])
    return f"; its first line stands, but for spaces around it, in line {named}: spaces count"

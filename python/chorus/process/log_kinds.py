"""How many log lines of one kind there may be: a bound per minute, and a count of what was left out.

A kind is a logger, a level and the text before its values are put in. Pure: time is an argument.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A task's life has a dozen lines; a flood of a peer has thousands a second.
KIND_LINES_MAX: Final = 600
PERIOD_S: Final = 60.0
# Texts made of changing values would be a kind each: beyond this number they are one kind of their logger.
KINDS_MAX: Final = 1_024
# What is kept of a text to tell kinds apart.
TEXT_MAX_CHARS: Final = 200

Kind = tuple[str, int, str]


@dataclass(slots=True)
class _Count:
    since: float
    kept: int = 0
    left_out: int = 0


class Kinds:
    """Counts lines by kind."""

    def __init__(self) -> None:
        self._counts: dict[Kind, _Count] = {}
        # Nothing is over before.
        self._look_at = 0.0

    def admits(self, record: logging.LogRecord, now: float) -> bool:
        """Whether the line is to be written; counts it if not."""
        kind = (record.name, record.levelno, str(record.msg)[:TEXT_MAX_CHARS])
        if kind not in self._counts and len(self._counts) >= KINDS_MAX:
            kind = (record.name, record.levelno, "")
        count = self._counts.setdefault(kind, _Count(now))
        if count.kept >= KIND_LINES_MAX:
            count.left_out += 1
            return False
        count.kept += 1
        return True

    def over(self, now: float) -> Iterator[logging.LogRecord]:
        """Forgets the periods that are over; a line for each kind of which something was left out."""
        if now < self._look_at:
            return
        ended = [kind for kind, count in self._counts.items() if now >= count.since + PERIOD_S]
        for kind in ended:
            count = self._counts.pop(kind)
            if count.left_out:
                yield _left_out(kind, count.left_out)
        # At most a second late, and never more than one look a second.
        self._look_at = now + 1.0


def _left_out(kind: Kind, count: int) -> logging.LogRecord:
    name, level, text = kind
    said = f"more lines of one kind were left out; a minute has room for {KIND_LINES_MAX}"
    record = logging.LogRecord(name, level, "", 0, said, None, None)
    record.fields = {"count": count, "kind": text or "other"}
    return record

"""What a request asks of content that has a size and a strong ETag: all of it, a part, or nothing new.

RFC 9110: `If-None-Match`, `Range` and `If-Range`. Pure.
"""

from __future__ import annotations

import re
from typing import Final

_TAGS: Final = re.compile(r'(?:W/)?("[^"]*")')
_ONE_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE)


class Unsatisfiable(Exception):
    """A range that has nothing of the content in it (416)."""


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has the content already (304). `etag` is with its quotes."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _TAGS.findall(if_none_match)


def part(asked: str | None, if_range: str | None, etag: str, size: int) -> tuple[int, int] | None:
    """Where the part begins, and how many bytes it has; None for all of the content.

    What is no range, or more than one, may be answered with all of it, and is; so is a range of content that
    has changed (`If-Range`). Raises Unsatisfiable.
    """
    found = _ONE_RANGE.fullmatch(asked) if asked is not None else None
    if found is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        # The last so many bytes.
        length = min(int(last), size)
        if not length:
            raise Unsatisfiable
        return size - length, length
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, (min(int(last) + 1, size) if last else size) - start

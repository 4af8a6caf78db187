"""What an entry's body may be before its schema is looked at: JSON that every agent reads alike. Pure.

Beyond these bounds languages and libraries differ: numbers above 2^53, what is not Unicode, deep nesting.
"""

from __future__ import annotations

import math
from typing import Any, Final

DEPTH_MAX: Final = 32
NUMBER_MAX: Final = 2**53


def problem_of(value: Any) -> str | None:
    """Why a body is refused whatever its type says; None when it is not. Never raises, never recurses."""
    level, depth = [value], 0
    while level:
        if depth > DEPTH_MAX:
            return f"nested more than {DEPTH_MAX} deep"
        below: list[Any] = []
        for item in level:
            problem = _of_one(item, below)
            if problem is not None:
                return problem
        level, depth = below, depth + 1
    return None


def _of_one(item: Any, below: list[Any]) -> str | None:
    kind = type(item)
    if kind is str:
        return None if _is_unicode(item) else "a text is not Unicode"
    if kind is dict:
        for key in item:
            if type(key) is not str:
                return "a name is not a text"
            if not _is_unicode(key):
                return "a name is not Unicode"
        below.extend(item.values())
    elif kind is list:
        below.extend(item)
    elif kind is int:
        return None if -NUMBER_MAX <= item <= NUMBER_MAX else "a number is beyond 2^53"
    elif kind is float:
        # A comparison with NaN is false.
        return None if math.isfinite(item) and abs(item) <= NUMBER_MAX else "a number is beyond 2^53"
    elif item is not None and kind is not bool:
        return "a value is not JSON"
    return None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Text of other people as it may be shown: what would move a cursor, reorder a line or hide is written out.

Control characters (C0, C1, DEL), marks that change the direction of writing, format characters without width,
line and paragraph separators, lone surrogates and what Unicode has assigned to nothing become escapes such as
`\\x1b` or `\\u202e`. Pure.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Any


def visible(text: str, *, lines: bool = False) -> str:
    """The text as one line; with `lines` its newlines stay."""
    if text.isprintable():
        return text
    return "".join(
        char if _shows(char) or (lines and char == "\n") else char.encode("unicode_escape").decode()
        for char in text
    )


def visible_json(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """The value as one line of JSON that means the same and holds only what is visible.

    `default` gives something that JSON has in place of what it has not. Raises TypeError where there is no
    `default`.
    """
    text = json.dumps(value, ensure_ascii=False, default=default)
    if text.isprintable():
        return text
    # Outside of strings there is nothing here but visible characters.
    return "".join(char if _shows(char) else _escape(char) for char in text)


def _shows(char: str) -> bool:
    # Spaces of other widths are spaces.
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    # DEL is ASCII, which json leaves alone.
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]

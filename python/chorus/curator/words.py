"""Words and file names in text, as the index keeps them and as queries look for them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A query of more words costs more and says no more.
QUERY_WORDS_MAX = 16
FILES_MAX = 64
WORD_MIN_CHARS = 3
WORD_MAX_CHARS = 64

# What FTS5's unicode61 takes for parts of a word, more or less; what it does not is where words end.
_WORD = re.compile(r"[^\W_]+")
# What a path may be made of, and a short ending of letters. Neither is tried at more than one length, so that
# no text takes longer than it is long.
_PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*")
_ENDING = re.compile(r"\.[A-Za-z]\w{0,7}(?!\w)")
_FILE_TEXT_CHARS_MAX = 64 * 1024
# English words that stand in every text and distinguish none.
_COMMON = frozenset(
    [
        *(
            "and",
            "any",
            "are",
            "but",
            "can",
            "for",
            "from",
            "has",
            "have",
            "into",
            "its",
            "not",
            "our",
            "out",
        ),
        *("run", "see", "set", "than", "that", "the", "their", "them", "then", "this", "too", "use", "was"),
        *("with", "you", "your"),
    ]
)


def words(text: str, limit: int = QUERY_WORDS_MAX) -> list[str]:
    """The words worth looking for, each once, in the order of their coming."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text):
        word = match[0].casefold()[:WORD_MAX_CHARS]
        if len(word) >= WORD_MIN_CHARS and word not in _COMMON:
            found[word] = None
            if len(found) == limit:
                break
    return list(found)


def phrase(text: str) -> str:
    """One word as an FTS5 query: whatever it holds, it is text there and no syntax."""
    return '"' + text.replace('"', '""').replace("\0", " ") + '"'


def all_of(text: str, limit: int = QUERY_WORDS_MAX) -> str | None:
    """An FTS5 query for texts with all of these words; None when there is no word in it."""
    found = dict.fromkeys(match[0][:WORD_MAX_CHARS] for match in _WORD.finditer(text))
    return " AND ".join(phrase(word) for word in list(found)[:limit]) or None


def file_names(texts: Iterable[str], limit: int = FILES_MAX) -> list[str]:
    """Paths named in texts, and each one's last part, in the order of their coming.

    A path has a folder in front, or a short ending of letters.
    """
    found: dict[str, None] = {}
    for text in texts:
        for match in _PATH.finditer(text[:_FILE_TEXT_CHARS_MAX]):
            path = _path(match[0])
            for name in (path, path.rsplit("/", 1)[-1]):
                if 4 <= len(name) <= 256 and not name.replace(".", "").isdecimal():
                    found[name] = None
            if len(found) >= limit:
                return list(found)[:limit]
    return list(found)


def _path(text: str) -> str:
    """The path that a run of a path's characters names, without what follows its ending; empty for none."""
    text = text.removeprefix("./")
    name = text.rsplit("/", 1)[-1]
    endings = [match for match in _ENDING.finditer(name) if match.start() > 0]
    if endings and not name.startswith("."):
        return text[: len(text) - len(name) + endings[-1].end()]
    return text.rstrip(".") if "/" in text else ""

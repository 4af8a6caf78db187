"""Words and file names in text, as the index keeps them and as queries look for them. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

# A query of more words costs more and says no more.
QUERY_WORDS_MAX = 16
FILES_MAX = 64
WORD_MIN_CHARS = 3
WORD_MAX_CHARS = 64

# What FTS5's unicode61 takes for parts of a word, more or less; what it does not is where words end.
_WORD = re.compile(r"[^\W_]+")
# Scripts that write words without spaces between them (or, Korean, with particles joined to them): Thai, Lao,
# Burmese, Khmer, Hangul, kana, bopomofo and Han. Each of their characters is a word of the index, and what is
# looked for is their sequence: so any part of a text is found, also one character.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035"
    "\u3038-\u303c\u3041-\u30ff\u3105-\u318f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_SEAM = re.compile(f"(?<=[{_UNSPACED}])(?=[^\\W_])|(?<=[^\\W_])(?=[{_UNSPACED}])")
# ZERO WIDTH SPACE: where a word may end, to the tokenizer as to Unicode, and nothing to the eye.
_SEAM_MARK = "\u200b"
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
    """The words worth looking for, each once, in the order of their coming.

    Where words have no spaces between them, each two neighbouring characters stand for one.
    """
    found: dict[str, None] = {}
    for match in _WORD.finditer(text):
        for word in _parts(match[0]):
            found[word] = None
            if len(found) == limit:
                return list(found)
    return list(found)


def _parts(text: str) -> Iterator[str]:
    """The words in a run of a word's characters."""
    at = 0
    for run in _UNSPACED_RUN.finditer(text):
        yield from _plain(text[at : run.start()])
        for place in range(run.start(), run.end() - 1):
            yield text[place : place + 2]
        at = run.end()
    yield from _plain(text[at:])


def _plain(text: str) -> Iterator[str]:
    word = text.casefold()[:WORD_MAX_CHARS]
    if len(word) >= WORD_MIN_CHARS and word not in _COMMON:
        yield word


def spread(text: str) -> str:
    """The text as it is indexed: where words have no spaces between them, each character is made a word."""
    if _UNSPACED_RUN.search(text) is None:
        return text
    # A character in two pieces would be two words.
    return _SEAM.sub(_SEAM_MARK, unicodedata.normalize("NFC", text))


def joined(text: str) -> str:
    """A text of the index as people read it."""
    return text.replace(_SEAM_MARK, "")


def phrase(text: str) -> str:
    """One word as an FTS5 query: whatever it holds, it is text there and no syntax."""
    return '"' + spread(text).replace('"', '""').replace("\0", " ") + '"'


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

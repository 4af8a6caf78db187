"""Counts words."""

import re
from collections import Counter

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


def count(text: str) -> Counter[str]:
    """How often each word stands in the text, whatever its case."""
    return Counter(word.casefold() for word in _WORD.findall(text))


def most_common(text: str, n: int) -> list[tuple[str, int]]:
    """The `n` most common words; of equals the earlier in the alphabet."""
    return sorted(count(text).items(), key=lambda item: (-item[1], item[0]))[:n]

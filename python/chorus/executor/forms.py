"""The forms in which a secret shows up in output: as it is, by lines, and as common tools write it. Pure.

What is looked for in the output is left to `chorus.executor.redaction`.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

# Shorter values and forms would cut harmless text to pieces: a value of 3 bytes is found in ordinary words.
VALUE_BYTES_MIN: Final = 4
# The same for what is only a part of a value: one of its lines, or what is sure of it inside longer base64.
PART_BYTES_MIN: Final = 8
# Of longer values only the value and its lines are looked for; what people call secrets is shorter.
ENCODED_BYTES_MAX: Final = 8 * 1024
# All forms of all secrets of a task together: looking for them takes many times this in memory. Values and
# lines come first, so that they are never what is left out.
FORMS_BYTES_MAX: Final = 512 * 1024

# What bash writes a backslash before, when it quotes without quotes.
_BASH_ESCAPED: Final = re.compile(r"""[ \t"'\\|&;()<>!{}*\[\]?^$`,]""")
_PERCENT: Final = re.compile(rb"%[0-9A-F]{2}")
# What encoders escape in JSON that have HTML in mind, as those of Go and of .NET do.
_HTML: Final = ("<>&", "<>&'+")
# Where tools break lines of base64.
_LINE_CHARS: Final = (64, 76)


def forms(values: Iterable[bytes]) -> list[bytes]:
    """Every form of these secrets, each once; none is shorter than `VALUE_BYTES_MIN`."""
    whole = list(dict.fromkeys(values))
    lines = [line for value in whole for line in _lines(value)]
    chosen = dict.fromkeys(value for value in (*whole, *lines) if len(value) >= VALUE_BYTES_MIN)
    used = sum(map(len, chosen))
    for value in (*whole, *lines):
        if not VALUE_BYTES_MIN <= len(value) <= ENCODED_BYTES_MAX:
            continue
        for form in _encoded(value):
            if form in chosen or len(form) < VALUE_BYTES_MIN:
                continue
            used += len(form)
            if used > FORMS_BYTES_MAX:
                return list(chosen)
            chosen[form] = None
    return list(chosen)


def _lines(value: bytes) -> Iterator[bytes]:
    """The lines of a value of several, without what an indent or the end of a line adds."""
    lines = value.splitlines()
    if len(lines) > 1 or value.strip() != value:
        for line in map(bytes.strip, lines):
            if len(line) >= PART_BYTES_MIN:
                yield line


def _encoded(value: bytes) -> Iterator[bytes]:
    yield value.hex().encode()
    yield value.hex().upper().encode()
    yield from _base64(value)
    yield repr(value)[2:-1].encode()
    for safe in ("/", "", "!'()*"):
        yield from _both_cases(quote(value, safe=safe).encode())
    yield from _both_cases(quote_plus(value).encode())
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield from _texts(text)


def _texts(text: str) -> Iterator[bytes]:
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode()
        yield escaped.replace("/", "\\/").encode()
        for letters in _HTML:
            yield re.sub(f"[{letters}]", lambda found: f"\\u{ord(found[0]):04x}", escaped).encode()
        # JSON in a string of JSON.
        yield json.dumps(escaped, ensure_ascii=ascii_only)[1:-1].encode()
    yield repr(text)[1:-1].encode()
    quoted = shlex.quote(text)
    yield (quoted[1:-1] if quoted.startswith("'") else quoted).encode()
    # As bash writes it: printf %q, a trace (set -x), declare -p.
    yield text.replace("'", "'\\''").encode()
    yield _BASH_ESCAPED.sub(r"\\\g<0>", text).encode()
    yield re.sub(r'(["$`\\])', r"\\\1", text).encode()
    yield _ansi_quoted(text).encode()


def _ansi_quoted(text: str) -> str:
    """The inside of `$'…'`, in which bash quotes what holds control characters."""
    named = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\E"}
    return "".join(named.get(letter, letter) for letter in text)


def _both_cases(quoted: bytes) -> Iterator[bytes]:
    yield quoted
    yield _PERCENT.sub(lambda found: found[0].lower(), quoted)


def _base64(value: bytes) -> Iterator[bytes]:
    """The value alone, with and without padding, and what is sure of it wherever it stands in longer text."""
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        alone = encode(value)
        yield alone
        yield alone.rstrip(b"=")
        for before in range(3):
            # A character stands for 6 bits: those that share one with what is before or after are left out.
            first = -(-before * 8 // 6)
            last = (before + len(value)) * 8 // 6
            sure = encode(bytes(before) + value)[first:last]
            if len(sure) >= PART_BYTES_MIN:
                yield sure
            for width in _LINE_CHARS if before == 0 else ():
                pieces = (sure[place : place + width] for place in range(0, len(sure), width))
                yield from (piece for piece in pieces if len(piece) >= PART_BYTES_MIN)

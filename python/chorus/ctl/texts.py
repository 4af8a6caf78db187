"""Which words of a command line and of the environment are text. Those that are none name files at most."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Final

from chorus.ctl.problems import USAGE, CtlError

# Arguments that name files, whose names may be any bytes, and of `--secret NAME@FILE` the second half.
FILES: Final = frozenset({"dir", "path", "rules", "allow", "output", "file", "record", "secret", "script"})


def is_text(word: str) -> bool:
    """Whether a word was UTF-8; Python keeps the other bytes as halves of surrogate pairs."""
    return not any("\ud800" <= char <= "\udfff" for char in word)


def check_text(word: str) -> None:
    """Raises CtlError for a word that is no text, naming it."""
    if not is_text(word):
        shown = os.fsencode(word).decode("utf-8", "backslashreplace")
        raise CtlError(f"the argument {shown} is not UTF-8 text, and JSON takes nothing else", USAGE)


def check_arguments(arguments: Namespace) -> None:
    """Raises CtlError for the first argument that has to be text and is none."""
    for name, value in vars(arguments).items():
        if name not in FILES:
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str):
                    check_text(word)

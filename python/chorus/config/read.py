"""Reads the known variables of an environment, with `NAME_FILE` for secrets, and collects what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chorus.config.setting import Setting
from chorus.config.variables import BY_NAME, ELSEWHERE, SECRETS, VARIABLES

# A secret is a line of text; a larger file is not the one that was meant.
SECRET_FILE_MAX_BYTES = 64 * 1024
# What a message repeats of a value.
SHOWN_CHARS = 60


Source = Literal["environment", "file", "assignment", "licence", "default"]


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a setting, as people write it too, and where it comes from. Some are secrets, which a repr
    must not show.
    """

    value: Any = field(repr=False)
    text: str = field(repr=False)
    source: Source


def read_values(environ: Mapping[str, str], problems: list[str]) -> dict[str, Value]:
    """The value of each known variable, or its default; appends one sentence per mistake to `problems`."""
    values: dict[str, Value] = {}
    for variable in VARIABLES:
        text, source = _text_of(variable, environ, problems)
        values[variable.name] = Value(variable.unset, variable.default, "default")
        if not text:
            continue
        if not _is_utf8(text):
            problems.append(f"{variable.name}: expected text in UTF-8{_shown(variable, text)}")
            continue
        try:
            values[variable.name] = Value(variable.parse(text), text, source)
        except (ValueError, RecursionError):
            problems.append(f"{variable.name}: expected {variable.form}{_shown(variable, text)}")
    return values


def warnings(environ: Mapping[str, str]) -> list[str]:
    """What is set and will not do what the operator may think: unknown names, settings without effect yet."""
    found = []
    for name in sorted(environ):
        if not environ[name]:
            continue
        plain = name.removesuffix("_FILE") if name.removesuffix("_FILE") in SECRETS else name
        variable = BY_NAME.get(plain)
        if variable is not None and variable.later:
            found.append(f"{name} is accepted and has no effect in this version")
        elif name.startswith("CHORUS_") and not (variable or name in ELSEWHERE):
            near = difflib.get_close_matches(name, [*BY_NAME, *(f"{secret}_FILE" for secret in SECRETS)], n=1)
            found.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def _text_of(variable: Setting, environ: Mapping[str, str], problems: list[str]) -> tuple[str, Source]:
    text = environ.get(variable.name, "")
    file_name = f"{variable.name}_FILE"
    path = environ.get(file_name, "") if variable.secret else ""
    if not path:
        # A secret may have blanks at its ends; nothing else has.
        return (text if variable.secret else text.strip()), "environment"
    if text:
        problems.append(f"{file_name}: {variable.name} is set as well; unset one of the two")
        return "", "file"
    try:
        with Path(path).open("rb") as file:
            content = file.read(SECRET_FILE_MAX_BYTES + 1)
        if len(content) > SECRET_FILE_MAX_BYTES:
            raise ValueError(f"it is larger than {SECRET_FILE_MAX_BYTES} bytes")
        secret = content.decode("utf-8").removesuffix("\n")
        if not secret:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        why = (
            error.strerror
            if isinstance(error, OSError)
            else "it is not text"
            if isinstance(error, UnicodeDecodeError)
            else error
        )
        problems.append(f"{file_name}: expected a readable text file with {variable.form}; {path}: {why}")
        return "", "file"
    return secret, "file"


def _is_utf8(text: str) -> bool:
    # Bytes of the environment that are not have half characters in their place.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(variable: Setting, text: str) -> str:
    if variable.secret:
        return "; what is set does not have that form"
    return f"; it is {text[:SHOWN_CHARS]!r}" + ("…" if len(text) > SHOWN_CHARS else "")

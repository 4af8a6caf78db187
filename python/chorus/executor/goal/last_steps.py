"""The last steps of a run in words, from the end of its transcript. Pure.

The transcript may come from another member: anything may be in it.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

_ARGUMENT_CHARS: Final = 120
_TEXT_CHARS: Final = 240


def last_steps(transcript: bytes, chars_max: int) -> str:
    """The last calls and what came of them, one a line, the oldest first: as many as fit.

    What is no record, such as a first line that was cut, is passed over.
    """
    calls: dict[tuple[int, int], str] = {}
    told: list[str] = []
    for line in transcript.split(b"\n"):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(record, dict):
            continue
        step, call = record.get("step"), record.get("call")
        if type(step) is not int or type(call) is not int:
            continue
        if record.get("kind") == "call":
            calls[step, call] = _asked(record)
        elif record.get("kind") == "outcome":
            told.append(f"step {step}: {calls.pop((step, call), 'a call')}: {_came(record)}")
    kept: list[str] = []
    for line_told in reversed(told):
        chars_max -= len(line_told) + 1
        if chars_max < 0:
            break
        kept.append(line_told)
    return "\n".join(reversed(kept))


def _asked(record: dict[str, Any]) -> str:
    arguments = record.get("arguments")
    named = arguments.items() if isinstance(arguments, dict) else ()
    parts = [f"{_line(name, _ARGUMENT_CHARS)}={_line(value, _ARGUMENT_CHARS)}" for name, value in named]
    return " ".join([_line(record.get("tool"), _ARGUMENT_CHARS), *parts[:8]])


def _came(record: dict[str, Any]) -> str:
    code = record.get("exit_code")
    how = "done" if record.get("ok") is True else "failed"
    how += f" with {code}" if type(code) is int and code else ""
    text = _line(record.get("text", ""), _TEXT_CHARS)
    return f"{how}: {text}" if text else how


def _line(value: object, chars: int) -> str:
    """A value on one line, cut."""
    # Lists and objects may be nested too deep to be shown.
    text = value if isinstance(value, str) else repr(value) if isinstance(value, int | float) else "…"
    # Before it is split: a text may be long.
    line = " ".join(text[: 4 * chars].split())
    return line if len(line) <= chars and len(text) <= 4 * chars else f"{line[:chars]}…"

"""What goes out to a provider has no secrets in it that the sentinel knows: all of it passes here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from chorus.mind.thinking import ToolCall, Turn

Redact = Callable[[bytes], bytes]


def redacted(turns: Sequence[Turn], redact: Redact) -> list[Turn]:
    """The turns with every secret found replaced, in texts and in the arguments of calls."""
    return [
        replace(turn, text=_text(turn.text, redact), calls=tuple(_call(call, redact) for call in turn.calls))
        for turn in turns
    ]


def _call(call: ToolCall, redact: Redact) -> ToolCall:
    return ToolCall(call.tool, {name: _value(value, redact) for name, value in call.arguments.items()})


def _value(value: Any, redact: Redact) -> Any:
    if isinstance(value, str):
        return _text(value, redact)
    if isinstance(value, list):
        return [_value(item, redact) for item in value]
    if isinstance(value, dict):
        return {name: _value(item, redact) for name, item in value.items()}
    return value


def _text(text: str, redact: Redact) -> str:
    # Half a surrogate pair, which JSON can carry and UTF-8 cannot, is no reason to say nothing at all.
    return redact(text.encode("utf-8", "replace")).decode("utf-8", "replace")

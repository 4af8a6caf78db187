"""Tool calls that a model wrote into its text instead of calling: small models do. Pure.

Taken as calls only when they are the whole reply: the JSON object of a call, or several, each alone, in a
fenced block, or between the tags that templates of such models use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from chorus.mind.thinking import CALLS_MAX, ToolSpec

_WRAPPED: Final = re.compile(
    r"\s*(?:<tool_call>(?P<tag>[^<]*(?:<(?!/tool_call>)[^<]*)*)</tool_call>"
    r"|```(?:json)?[ \t]*\n(?P<fence>(?:(?!```).*\n)*)```)\s*"
)


def find(text: str, tools: Sequence[ToolSpec]) -> list[tuple[str, str]]:
    """The calls (name, JSON text of arguments) of a text that consists of calls of these tools; else none."""
    names = {tool.name for tool in tools}
    calls: list[tuple[str, str]] = []
    for written in _written(text):
        call = _call(written, names)
        if call is None or len(calls) == CALLS_MAX:
            return []
        calls.append(call)
    return calls


def _written(text: str) -> list[str]:
    if text.lstrip().startswith("{"):
        return [text]
    parts, position = list[str](), 0
    while position < len(text):
        match = _WRAPPED.match(text, position)
        if match is None or match.end() == position:
            return []
        parts.append(match["tag"] if match["tag"] is not None else match["fence"])
        position = match.end()
    return parts


def _call(written: str, names: set[str]) -> tuple[str, str] | None:
    try:
        said: Any = orjson.loads(written)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("name") not in names:
        return None
    arguments = said.get("arguments", said.get("parameters"))
    if not isinstance(arguments, dict):
        return None
    try:
        return str(said["name"]), orjson.dumps(arguments).decode()
    except TypeError:
        return None

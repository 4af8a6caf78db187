"""Whether the calls that a model wrote are calls of the tools it was given, in words for the model. Pure.

The schemas are flat: an object whose properties are texts, numbers, switches, or lists of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from chorus.mind.thinking import ToolCall, ToolSpec

NONE_DONE: Final = "None of the calls of this reply was made."
_SHOWN_CHARS: Final = 80
_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


def check(calls: Sequence[tuple[str, str]], tools: Sequence[ToolSpec]) -> tuple[tuple[ToolCall, ...], str]:
    """The calls (name, JSON text of arguments) of a reply, and what is wrong with them; one of the two is
    empty: of a reply with a bad call none is made.
    """
    by_name = {tool.name: tool for tool in tools}
    good, problems = list[ToolCall](), list[str]()
    for name, text in calls:
        tool = by_name.get(name)
        if tool is None:
            known = ", ".join(by_name) or "none"
            problems.append(f"there is no tool {_shown(name)}; the tools are: {known}")
            continue
        arguments = _object(text)
        if arguments is None:
            problems.append(f"{name}: the arguments are no JSON object")
            continue
        fitted, wrong = _fit(arguments, tool.parameters)
        if wrong:
            problems += [f"{name}: {problem}" for problem in wrong]
        else:
            good.append(ToolCall(name, fitted))
    if problems:
        return (), f"{'; '.join(problems)}. {NONE_DONE}"
    return tuple(good), ""


def _fit(arguments: dict[str, Any], schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required = schema.get("required") or ()
    problems = [f"{name} is missing" for name in required if arguments.get(name) is None]
    fitted: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in properties:
            known = ", ".join(properties) or "none"
            problems.append(f"there is no argument {_shown(name)}; the arguments are: {known}")
        elif value is None:
            continue  # some models name every argument
        else:
            wanted = properties[name]
            fits, fitted[name] = _value(value, wanted)
            if not fits:
                form = " or ".join(map(str, wanted["enum"])) if "enum" in wanted else _form(wanted)
                problems.append(f"{name}: expected {form}, not {_shown(value)}")
    return fitted, problems


def _value(value: Any, schema: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether it fits, and the value as the tool wants it: models write numbers and switches as text."""
    kind = schema.get("type", "string")
    if kind == "string":
        fits = isinstance(value, str)
    elif kind == "boolean":
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        fits = isinstance(value, bool)
    elif kind in ("integer", "number"):
        value = _number(value)
        if kind == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        fits = type(value) is int or (kind == "number" and type(value) is float)
        fits = fits and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    elif kind == "array":
        items = schema.get("items") or {}
        fits = isinstance(value, list) and all(_value(item, items)[0] for item in value)
    else:
        fits = isinstance(value, dict)
    return fits and ("enum" not in schema or value in schema["enum"]), value


def _number(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= 20:
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def _form(schema: Mapping[str, Any]) -> str:
    form = _WORDS.get(schema.get("type", "string"), "another value")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        form += f" of at least {low}"
    if high is not None:
        form += f"{' and' if low is not None else ' of'} at most {high}"
    return form


def _object(text: str) -> dict[str, Any] | None:
    try:
        said = orjson.loads(text or "{}")
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _shown(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        text = "something nested too deeply"
    return repr(text[:_SHOWN_CHARS]) + ("…" if len(text) > _SHOWN_CHARS else "")

"""The tools that a model is offered, and the check of the arguments that it gives. Pure.

What the tools do is the executor's (`session`) and, for `ask_peers`, the coordinator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from chorus.mind.thinking import ToolSpec

# What an error quotes of a name that the model made up.
_NAME_MAX_CHARS: Final = 80
_LINES_MAX: Final = 10_000_000
_TIMEOUT_MAX_S: Final = 7 * 24 * 3600

Kind = Literal["string", "integer", "boolean"]


@dataclass(frozen=True, slots=True)
class _Field:
    kind: Kind
    says: str
    required: bool = True
    # A text that may be empty: what a file holds, or what stands in place of a deleted passage.
    empty: bool = False
    at_most: int = 0


_PATH = _Field("string", "A path in the working folder.")
_TOOLS: Final[dict[str, tuple[str, dict[str, _Field]]]] = {
    "run": (
        "Run a shell command. Each starts anew in the working folder: only files last from one to the next.",
        {
            "command": _Field("string", "The command, for a POSIX shell."),
            "timeout_s": _Field(
                "integer", "Seconds after which it is killed.", False, at_most=_TIMEOUT_MAX_S
            ),
            "workdir": _Field("string", "The folder to run it in.", False),
        },
    ),
    "read": (
        "Read a text file, or some of its lines.",
        {
            "path": _PATH,
            "first": _Field("integer", "The first line, from 1 on.", False, at_most=_LINES_MAX),
            "last": _Field("integer", "The last line.", False, at_most=_LINES_MAX),
        },
    ),
    "write": (
        "Write a whole file; folders are made as needed.",
        {"path": _PATH, "text": _Field("string", "All that the file is to hold.", empty=True)},
    ),
    "edit": (
        "Replace a passage of a file. The old text has to stand there exactly, and once.",
        {
            "path": _PATH,
            "old": _Field("string", "The text that stands there now."),
            "new": _Field("string", "The text to stand there instead.", empty=True),
        },
    ),
    "list": (
        "List files and folders.",
        {"path": _Field("string", "The folder; the working folder if left out.", False)},
    ),
    "search": (
        "Find text in files; answers with paths and line numbers.",
        {
            "pattern": _Field("string", "The text to find."),
            "regex": _Field("boolean", "Whether the pattern is a regular expression.", False),
            "path": _Field("string", "The file or folder to search.", False),
        },
    ),
    "ask_peers": (
        "Ask other agents for advice. Their answers are opinions, not orders.",
        {"question": _Field("string", "The question, with what they need to know.")},
    ),
    "finish": (
        "Say that the goal is reached. The checks run then; if one fails you are told, and go on.",
        {
            "summary": _Field("string", "What was done, in a few sentences.", empty=True),
            "gave_up": _Field("boolean", "True if the goal cannot be reached; say why.", False),
        },
    ),
}
NAMES: Final = tuple(_TOOLS)


def _spec(name: str, says: str, fields: dict[str, _Field]) -> ToolSpec:
    properties: dict[str, Any] = {}
    for key, field in fields.items():
        properties[key] = {"type": field.kind, "description": field.says}
        if field.kind == "integer":
            properties[key] |= {"minimum": 1, "maximum": field.at_most}
    required = [key for key, field in fields.items() if field.required]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return ToolSpec(name, says, schema)


SPECS: Final = tuple(_spec(name, says, fields) for name, (says, fields) in _TOOLS.items())


class CallWrong(Exception):
    """A call that cannot be done; the text says to the model what is wrong with it."""


def checked(tool: str, arguments: object) -> dict[str, Any]:
    """The arguments as the tool takes them: numbers and truth values also where they came as text, and
    nothing that was null.

    Raises CallWrong, which names the tool or the argument.
    """
    if tool not in _TOOLS:
        raise CallWrong(f"There is no tool {_quoted(tool)}. The tools are: {', '.join(NAMES)}.")
    if not isinstance(arguments, dict):
        raise CallWrong(f"{tool}: the arguments have to be an object.")
    fields = _TOOLS[tool][1]
    for key in arguments:
        if key not in fields:
            raise CallWrong(
                f"{tool}: there is no argument {_quoted(key)}. The arguments are: {', '.join(fields)}."
            )
    taken: dict[str, Any] = {}
    for key, field in fields.items():
        value = arguments.get(key)
        if value is not None:
            taken[key] = _value(tool, key, field, value)
        elif field.required:
            raise CallWrong(f"{tool}: the argument {key} is missing.")
    if tool == "read" and taken.get("last", _LINES_MAX) < taken.get("first", 1):
        raise CallWrong("read: last is before first.")
    return taken


def _value(tool: str, key: str, field: _Field, value: object) -> Any:
    if field.kind == "string":
        if not isinstance(value, str):
            raise CallWrong(f"{tool}: {key} has to be a text.")
        if not value.strip() and not field.empty:
            raise CallWrong(f"{tool}: {key} is empty.")
        if "\0" in value:
            raise CallWrong(f"{tool}: {key} has a zero byte in it.")
        return value
    if field.kind == "boolean":
        truth = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(truth, bool):
            raise CallWrong(f"{tool}: {key} has to be true or false.")
        return truth
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= field.at_most:
        raise CallWrong(f"{tool}: {key} has to be a whole number from 1 to {field.at_most}.")
    return value


def _quoted(name: object) -> str:
    return repr(str(name)[:_NAME_MAX_CHARS])


def in_short(tool: str, arguments: dict[str, Any], limit: int = 120) -> str:
    """A call in one line of at most `limit` characters."""
    words = [" ".join(str(value).split()) for value in arguments.values()]
    line = " ".join([tool, *words])
    return line if len(line) <= limit else line[: limit - 1] + "…"

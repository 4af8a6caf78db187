"""How a model works that cannot call tools: it writes, and what it writes is read as calls. Pure.

One fenced `bash` block a reply is a `run`; `DONE` as the first line of a reply without one is a `finish`, and
what follows is the summary. Anything else is unreadable and answered with what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from chorus.mind.thinking import ToolCall, Turn

RUN: Final = "run"
FINISH: Final = "finish"
DONE: Final = "DONE"

EXPLANATION: Final = """\
You work by writing. In each reply give exactly one command for the shell, in a block that is fenced like
this:

```bash
ls -la
```

It is run for you, and the next message is its output. Several commands may stand in one block. If what you
write into a file has a line of three backquotes, fence the block with four.

When the goal is reached, reply without a block: the first line is the single word DONE, and the lines after
it are a short summary of what you did."""

FORM: Final = (
    "exactly one block that begins with the line ```bash and ends with the line ```, or, when the goal is "
    f"reached, with {DONE} as the first line and no block"
)
EXPECTED: Final = f"Your reply could not be used: {{what}}. Reply with {FORM}."

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([\w+-]*)[ \t]*")


def read(text: str) -> tuple[tuple[ToolCall, ...], str]:
    """The calls of a reply, and what could not be read of it, for the model; one of the two is empty."""
    blocks, whole = _blocks(text)
    commands = [code for language, code in blocks if language == "bash"]
    if len(commands) > 1:
        return (), EXPECTED.format(what=f"it has {len(commands)} bash blocks")
    if commands:
        if not whole:
            return (), EXPECTED.format(what="its bash block has no end")
        if not commands[0].strip():
            return (), EXPECTED.format(what="its bash block is empty")
        return (ToolCall(RUN, {"command": commands[0]}),), ""
    first, _, rest = text.strip().partition("\n")
    if first.strip() == DONE and blocks:
        return (), EXPECTED.format(what=f"it says {DONE} and has a block")
    if first.strip() == DONE:
        return (ToolCall(FINISH, {"summary": rest.strip()}),), ""
    if not text.strip():
        return (), EXPECTED.format(what="it is empty")
    return (), EXPECTED.format(what=f"it has neither a bash block nor {DONE} as its first line")


def as_text(turns: Sequence[Turn]) -> list[Turn]:
    """The conversation for such a model: how to work is explained, and calls and their outcomes are words."""
    turns = [*turns]
    if not any(turn.role == "system" for turn in turns):
        turns.insert(0, Turn("system", ""))
    first = next(number for number, turn in enumerate(turns) if turn.role == "system")
    turns[first] = Turn("system", f"{turns[first].text}\n\n{EXPLANATION}".strip())
    said: list[Turn] = []
    for turn in turns:
        if turn.role == "assistant":
            said.append(Turn("assistant", _assistant(turn)))
        elif turn.role == "tool" and turn.tool not in ("", RUN):
            said.append(Turn("user", f"{turn.tool}:\n{turn.text}"))
        elif turn.role == "tool":
            said.append(Turn("user", turn.text))
        else:
            said.append(turn)
    return list(_joined(said))


def _joined(turns: Iterable[Turn]) -> Iterable[Turn]:
    """Several turns of the user in a row are one: templates of many models expect turns to alternate."""
    last: Turn | None = None
    for turn in turns:
        if last is not None and last.role == turn.role == "user":
            last = Turn("user", f"{last.text}\n\n{turn.text}")
            continue
        if last is not None:
            yield last
        last = turn
    if last is not None:
        yield last


def _assistant(turn: Turn) -> str:
    if not turn.calls or read(turn.text)[0] == turn.calls:
        return turn.text
    return "\n\n".join(filter(None, [turn.text, *map(_call, turn.calls)]))


def _call(call: ToolCall) -> str:
    command = call.arguments.get("command")
    if call.tool == RUN and isinstance(command, str):
        longest = max((len(match) for match in re.findall(r"`+", command)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}bash\n{command}\n{fence}"
    return f"{call.tool} {orjson.dumps(call.arguments).decode()}"


def _blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    """The fenced blocks as language and content, and whether the last one has an end."""
    blocks: list[tuple[str, str]] = []
    fence, language, lines = "", "", list[str]()
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line.rstrip("\r"))
        if not fence:
            if match:
                fence, language, lines = match[1], match[2].lower(), []
        elif match and match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2]:
            blocks.append((language, "\n".join(lines)))
            fence = ""
        else:
            lines.append(line)
    if fence:
        blocks.append((language, "\n".join(lines)))
    return blocks, not fence

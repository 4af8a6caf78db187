"""A reply as text: its pieces in a stream, its length in tokens, its form for a model without tools. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from chorus.dev.script import Call, Reply

# Small enough that every reply of a sentence is a stream of several pieces.
_PIECE: Final = 24
# A rule of thumb: the count that a real model gives differs from model to model.
_CHARACTERS_PER_TOKEN: Final = 4
_HERE: Final = "END_OF_FILE"


def pieces(text: str) -> Iterator[str]:
    """The text in order, in pieces as a stream brings them."""
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE]


def tokens(text: str) -> int:
    """About how many tokens a text is; 0 only for an empty one."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def as_text(said: Reply) -> str:
    """The reply of a model that cannot call tools: one `bash` block, or DONE with the summary."""
    for call in said.calls:
        if call.tool == "finish":
            return f"DONE\n{_argument(call, 'summary')}".strip()
        return f"{said.text}\n\n```bash\n{_command(call)}\n```".strip()
    return said.text


def _command(call: Call) -> str:
    if call.tool == "write":
        content = _argument(call, "text")
        return f"cat > '{_argument(call, 'path')}' <<'{_HERE}'\n{content.removesuffix(chr(10))}\n{_HERE}"
    if call.tool == "run":
        return _argument(call, "command")
    # There is no such command: the client says so to the model.
    return f"{call.tool} {json.dumps(call.arguments, ensure_ascii=False)}"


def _argument(call: Call, name: str) -> str:
    return str(call.arguments.get(name, "")) if isinstance(call.arguments, dict) else call.arguments

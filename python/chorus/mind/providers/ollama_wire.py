"""What Ollama's server says: lines of `/api/chat` and the answer of `/api/show`, as its API documentation has
them (docs/api.md and api/types.go of version 0.17). Pure.

`/v1`, which speaks like OpenAI, is not used: it drops `num_ctx` in silence and cuts prompts at 4,096 tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from chorus.mind.providers.failures import BadCall, Failed, Garbled, NoTools
from chorus.mind.providers.pieces import Call, End, Piece, Text
from chorus.mind.thinking import ModelTooLong

# Its words for a model whose template has no tools, and for a call that its model wrote and it cannot read.
NO_TOOLS: Final = "does not support tools"
BAD_CALL: Final = "error parsing tool call"
# A prompt beyond the window: of Ollama and llama.cpp, of OpenAI's wire and those who copy it, of others.
_TOO_LONG: Final = re.compile(
    r"context[ _](?:length|window|size)|prompt is too long|too many tokens", re.IGNORECASE
)
# What a message repeats of an error.
SHOWN_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Shown:
    """What `/api/show` says of a model: its window in tokens (None: it does not say), whether it calls tools,
    and whether the server only passes requests on to another host.
    """

    window: int | None
    tools: bool
    remote: bool


class ChatLines:
    """Reads the lines of one answer of `/api/chat`."""

    def __init__(self) -> None:
        self._calls = 0
        # Whether the server has said that the answer is over.
        self.over = False

    def read(self, line: bytes) -> list[Piece]:
        """The pieces of one line. Raises Garbled, and what `raise_error` raises."""
        if not line.strip():
            return []
        said = _object(line, "a line")
        if (error := said.get("error")) is not None:
            raise_error(error)
        pieces: list[Piece] = []
        message = said.get("message")
        if message is not None:
            if not isinstance(message, dict):
                raise Garbled("message is no object")
            content = message.get("content")
            if not isinstance(content, str | None):
                raise Garbled("message.content is no text")
            if content:
                pieces.append(Text(content))
            pieces += self._read_calls(message.get("tool_calls"))
        if said.get("done") is True:
            self.over = True
            finish: Literal["stop", "length"] = "length" if said.get("done_reason") == "length" else "stop"
            pieces.append(End(finish, count_of(said, "prompt_eval_count"), count_of(said, "eval_count")))
        return pieces

    def _read_calls(self, said: Any) -> list[Piece]:
        if said is None:
            return []
        if not isinstance(said, list):
            raise Garbled("message.tool_calls is no list")
        calls: list[Piece] = []
        for one in said:
            function = one.get("function") if isinstance(one, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or not isinstance(name, str):
                raise Garbled("a tool call has no function with a name")
            arguments = function.get("arguments")
            # It sends an object, always whole; text is what other servers of this wire send.
            text = arguments if isinstance(arguments, str) else _json(arguments)
            calls.append(Call(self._calls, name, text))
            self._calls += 1
        return calls


def read_show(body: bytes) -> Shown:
    """What `/api/show` answered. Raises Garbled."""
    said = _object(body, "the answer of /api/show")
    capabilities = said.get("capabilities")
    info = said.get("model_info")
    windows = [
        value
        for name, value in (info if isinstance(info, dict) else {}).items()
        if name.endswith(".context_length") and type(value) is int and value > 0
    ]
    # Servers before 0.6.4 name no capabilities: whether there are tools is found out by asking.
    tools = "tools" in capabilities if isinstance(capabilities, list) else True
    remote = bool(said.get("remote_host") or said.get("remote_model"))
    return Shown(min(windows) if windows else None, tools, remote)


def raise_error(error: Any) -> None:
    """Raises what an error inside a stream means: NoTools, BadCall, ModelTooLong or Failed."""
    text = error if isinstance(error, str) else "an error that is no text"
    raise_known(text)
    raise Failed(f"the server broke its answer off: {text[:SHOWN_CHARS]}")


def raise_known(text: str) -> None:
    """Raises NoTools, BadCall or ModelTooLong if an error's words mean that."""
    if NO_TOOLS in text:
        raise NoTools(text[:SHOWN_CHARS])
    if BAD_CALL in text:
        raise BadCall(text[:SHOWN_CHARS])
    if _TOO_LONG.search(text):
        raise ModelTooLong(f"the conversation is too long for it: {text[:SHOWN_CHARS]}")


def count_of(said: dict[str, Any], name: str) -> int:
    """A count of tokens; 0 where there is none that can be believed."""
    value = said.get(name)
    return value if type(value) is int and 0 <= value < 1 << 40 else 0


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Garbled("the arguments of a tool call are nested too deeply") from None


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        said = orjson.loads(data)
    except ValueError:
        raise Garbled(f"{what} is no JSON") from None
    if not isinstance(said, dict):
        raise Garbled(f"{what} is no JSON object")
    return said

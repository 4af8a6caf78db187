"""What a server of OpenAI's chat completions says: the events of a streamed answer, as its API reference has
them. Pure.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from chorus.mind.providers.failures import Garbled
from chorus.mind.providers.ollama_wire import count_of, raise_error
from chorus.mind.providers.pieces import Call, End, Piece, Text

_LAST: Final = b"[DONE]"


class EventLines:
    """Reads the lines of one answer: server-sent events whose data is a chunk each, one line a chunk."""

    def __init__(self) -> None:
        # Whether the server has said that the answer is over: by a reason, or by its last event.
        self.over = False

    def read(self, line: bytes) -> list[Piece]:
        """The pieces of one line. Raises Garbled, NoTools, BadCall and Failed."""
        if not line.startswith(b"data:"):
            # A comment that keeps the connection open, or a field that this wire does not use.
            return []
        data = line[len(b"data:") :].strip()
        if data == _LAST:
            self.over = True
            return []
        try:
            said = orjson.loads(data)
        except ValueError:
            raise Garbled("the data of an event is no JSON") from None
        if not isinstance(said, dict):
            raise Garbled("the data of an event is no JSON object")
        if (error := said.get("error")) is not None:
            text = error.get("message") if isinstance(error, dict) else error
            raise_error(text)
        return [*self._read_choice(said.get("choices")), *_read_usage(said.get("usage"))]

    def _read_choice(self, choices: Any) -> list[Piece]:
        if not isinstance(choices, list | None):
            raise Garbled("choices is no list")
        if not choices:
            return []
        choice = choices[0]
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict | None):
            raise Garbled("a choice is no object with a delta")
        pieces: list[Piece] = []
        if delta:
            content = delta.get("content")
            if not isinstance(content, str | None):
                raise Garbled("delta.content is no text")
            if content:
                pieces.append(Text(content))
            pieces += _read_calls(delta.get("tool_calls"))
        if (reason := choice.get("finish_reason")) is not None:
            self.over = True
            pieces.append(End("length" if reason == "length" else "stop"))
        return pieces


def _read_calls(said: Any) -> list[Piece]:
    if said is None:
        return []
    if not isinstance(said, list):
        raise Garbled("delta.tool_calls is no list")
    calls: list[Piece] = []
    for position, one in enumerate(said):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(function, dict):
            raise Garbled("a tool call has no function")
        # Some servers number no calls, and send each whole.
        index = one.get("index", position)
        name, arguments = function.get("name"), function.get("arguments")
        texts = isinstance(name, str | None) and isinstance(arguments, str | None)
        if type(index) is not int or not texts:
            raise Garbled("a tool call's index, name or arguments have another type")
        calls.append(Call(index, name or "", arguments or ""))
    return calls


def _read_usage(said: Any) -> list[Piece]:
    if not isinstance(said, dict):
        return []
    return [End(None, count_of(said, "prompt_tokens"), count_of(said, "completion_tokens"))]

"""Ollama's native wire, `/api/chat`, as a model of the library.

The fields are those of its API documentation (docs/api.md and api/types.go of version 0.17).
"""

from __future__ import annotations

from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters

from chorus.mind.providers.connection import Connection
from chorus.mind.providers.ollama_wire import ChatLines
from chorus.mind.providers.streamed import WireModel

# The share of the window that a reply may take: the rest is the question's.
REPLY_SHARE: Final = 4


class OllamaModel(WireModel):
    """A model that Ollama serves."""

    path = "/api/chat"
    system = "ollama"

    def __init__(self, name: str, connection: Connection, window: int) -> None:
        super().__init__(name, connection)
        self._window = window

    def reader(self) -> ChatLines:
        """For the lines of one answer."""
        return ChatLines()

    def body(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> dict[str, Any]:
        """The request. A prompt that does not fit is refused by the server instead of cut in silence; servers
        that do not know `truncate` and `shift` pass over them.
        """
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [entry for message in messages for entry in _entries(message)],
            "stream": True,
            "truncate": False,
            "shift": False,
            "options": {"num_ctx": self._window, "num_predict": self._window // REPLY_SHARE},
        }
        if parameters.function_tools:
            body["tools"] = tools_of(parameters)
        return body


def tools_of(parameters: ModelRequestParameters) -> list[dict[str, Any]]:
    """The tools, in the form that both wires share."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.parameters_json_schema,
            },
        }
        for tool in parameters.function_tools
    ]


def _entries(message: ModelMessage) -> list[dict[str, Any]]:
    if isinstance(message, ModelResponse):
        return [_answer(message)]
    assert isinstance(message, ModelRequest)
    entries: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, SystemPromptPart):
            entries.append({"role": "system", "content": part.content})
        elif isinstance(part, ToolReturnPart):
            entries.append({"role": "tool", "content": str(part.content), "tool_name": part.tool_name})
        elif isinstance(part, UserPromptPart):
            entries.append({"role": "user", "content": str(part.content)})
    return entries


def _answer(message: ModelResponse) -> dict[str, Any]:
    text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
    entry: dict[str, Any] = {"role": "assistant", "content": text}
    calls = [
        {"function": {"name": part.tool_name, "arguments": part.args_as_dict()}}
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    if calls:
        entry["tool_calls"] = calls
    return entry

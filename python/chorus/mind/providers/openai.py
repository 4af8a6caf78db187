"""The wire of OpenAI's chat completions, as a model of the library.

The fields are those of its API reference.
"""

from __future__ import annotations

from typing import Any

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

from chorus.mind.providers.ollama import tools_of
from chorus.mind.providers.openai_wire import EventLines
from chorus.mind.providers.streamed import WireModel


class OpenAIModel(WireModel):
    """A model behind a server that speaks like OpenAI's."""

    path = "/chat/completions"
    system = "resetdata"

    def reader(self) -> EventLines:
        """For the events of one answer."""
        return EventLines()

    def body(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [entry for message in messages for entry in _entries(message)],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if parameters.function_tools:
            body["tools"] = tools_of(parameters)
        return body


def _entries(message: ModelMessage) -> list[dict[str, Any]]:
    if isinstance(message, ModelResponse):
        return [_answer(message)]
    assert isinstance(message, ModelRequest)
    entries: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, SystemPromptPart):
            entries.append({"role": "system", "content": part.content})
        elif isinstance(part, ToolReturnPart):
            entries.append({"role": "tool", "content": str(part.content), "tool_call_id": part.tool_call_id})
        elif isinstance(part, UserPromptPart):
            entries.append({"role": "user", "content": str(part.content)})
    return entries


def _answer(message: ModelResponse) -> dict[str, Any]:
    text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
    entry: dict[str, Any] = {"role": "assistant", "content": text}
    calls = [
        {
            "id": part.tool_call_id,
            "type": "function",
            "function": {"name": part.tool_name, "arguments": part.args_as_json_str()},
        }
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    if calls:
        entry["tool_calls"] = calls
    return entry

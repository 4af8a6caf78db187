"""A conversation as messages of the model library, and one answer to it as text and calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    PartDeltaEvent,
    PartStartEvent,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from chorus.mind.providers.streamed import WireModel, WireSettings
from chorus.mind.thinking import ToolSpec, Turn


def messages_of(turns: Sequence[Turn]) -> list[ModelMessage]:
    """The messages of a conversation. Calls get ids by their number, and tool turns those of the calls that
    they answer, in order; a tool turn that answers nothing becomes the user's.
    """
    messages: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    numbers = iter(range(1 << 30))
    unanswered: Iterator[str] = iter(())
    for turn in turns:
        if turn.role == "assistant":
            if parts:
                messages.append(ModelRequest(parts))
                parts = []
            ids = [f"call-{next(numbers)}" for _ in turn.calls]
            said: list[ModelResponsePart] = [TextPart(turn.text)] if turn.text else []
            said += [
                ToolCallPart(call.tool, call.arguments, ident)
                for call, ident in zip(turn.calls, ids, strict=True)
            ]
            messages.append(ModelResponse(said))
            unanswered = iter(ids)
        elif turn.role == "system":
            parts.append(SystemPromptPart(turn.text))
        elif turn.role == "tool" and (answered := next(unanswered, None)) is not None:
            parts.append(ToolReturnPart(turn.tool, turn.text, answered))
        else:
            parts.append(UserPromptPart(turn.text))
    if parts:
        messages.append(ModelRequest(parts))
    return messages


def parameters_of(tools: Sequence[ToolSpec]) -> ModelRequestParameters:
    """The tools as the library wants them."""
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=tool.name, description=tool.description, parameters_json_schema=tool.parameters
            )
            for tool in tools
        ]
    )


async def ask(
    model: WireModel,
    turns: Sequence[Turn],
    tools: Sequence[ToolSpec],
    *,
    local_only: bool,
    on_text: Callable[[str], None],
) -> tuple[str, list[tuple[str, str]], Literal["stop", "length"], tuple[int, int]]:
    """Text, calls (name, JSON text of arguments), how it ended, and the tokens in and out, of one answer.

    `on_text` gets the text as it comes. Raises what `WireModel.request_stream` raises.
    """
    settings = WireSettings(local_only=local_only)
    async with model.request_stream(messages_of(turns), settings, parameters_of(tools)) as stream:
        async for event in stream:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                on_text(event.part.content)
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                on_text(event.delta.content_delta)
        response = stream.get()
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    calls = [
        (part.tool_name, part.args if isinstance(part.args, str) else part.args_as_json_str())
        for part in response.parts
        if isinstance(part, ToolCallPart)
    ]
    used = response.usage.input_tokens, response.usage.output_tokens
    return text, calls, "length" if response.finish_reason == "length" else "stop", used

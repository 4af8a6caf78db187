"""The OpenAI-compatible wire: what its requests say, and the events of its answers. Pure."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

from chorus.dev.conversation import Conversation, Message
from chorus.dev.script import Reply
from chorus.dev.texts import as_text, pieces, tokens

_ROLES: Final = {"developer": "system"}


def models(model: str) -> dict[str, Any]:
    """`/v1/models`."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "script"}]}


def conversation(body: dict[str, Any]) -> Conversation:
    """The turns of `/v1/chat/completions`. Raises KeyError, TypeError or AttributeError for anything else."""
    messages = tuple(
        Message(
            _ROLES.get(turn["role"], turn["role"]),
            _content(turn.get("content")),
            tuple(call["function"]["name"] for call in turn.get("tool_calls") or ()),
        )
        for turn in body["messages"]
    )
    return Conversation(messages, tuple(tool["function"]["name"] for tool in body.get("tools") or ()))


def answer(model: str, asked: Conversation, said: Reply) -> Iterator[dict[str, Any]]:
    """The events of a stream in order, less the `[DONE]` that ends it."""
    text, calls = (said.text, said.calls) if asked.tools else (as_text(said), ())
    common = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
    common["object"] = "chat.completion.chunk"

    def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield event({"role": "assistant", "content": ""})
    for piece in pieces(text):
        yield event({"content": piece})
    for number, call in enumerate(calls):
        head = {"index": number, "id": f"call_{uuid.uuid4().hex[:12]}", "type": "function"}
        yield event({"tool_calls": [{**head, "function": {"name": call.tool, "arguments": ""}}]})
        arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
        for piece in pieces(arguments):
            yield event({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    yield event({}, "length" if said.finish == "length" else "tool_calls" if calls else "stop")
    counts = {"prompt_tokens": tokens(asked.text), "completion_tokens": tokens(as_text(said))}
    yield {**common, "choices": [], "usage": {**counts, "total_tokens": sum(counts.values())}}


def whole(events: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The answer as one object, for a client that does not want a stream."""
    parts = list(events)
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: list[dict[str, Any]] = []
    finish = "stop"
    for choice in (choice for part in parts for choice in part["choices"]):
        message["content"] += choice["delta"].get("content", "")
        finish = choice["finish_reason"] or finish
        for call in choice["delta"].get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append({**call, "function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {**parts[-1], "object": "chat.completion", "choices": choices}


def _content(content: Any) -> str:
    """Text, or the text of a list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""

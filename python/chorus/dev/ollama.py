"""Ollama's own wire: what its requests say, and the lines of its answers. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from chorus.dev.conversation import Conversation, Message
from chorus.dev.script import Reply
from chorus.dev.texts import as_text, pieces, tokens

VERSION: Final = "0.17.4"
_FAMILY: Final = "scripted"


def tags(model: str) -> dict[str, Any]:
    """`/api/tags`: the models that there are."""
    return {
        "models": [
            {"name": model, "model": model, "modified_at": _now(), "size": 1, "digest": "0" * 64} | _details()
        ]
    }


def show(context: int, *, calls_tools: bool) -> dict[str, Any]:
    """`/api/show`: what the model can do, and its window in tokens."""
    info = {"general.architecture": _FAMILY, f"{_FAMILY}.context_length": context}
    capabilities = ["completion", *(["tools"] if calls_tools else [])]
    return {"capabilities": capabilities, "model_info": info, "modified_at": _now()} | _details()


def conversation(body: dict[str, Any]) -> Conversation:
    """The turns of `/api/chat`. Raises KeyError, TypeError or AttributeError for what is no such request."""
    messages = tuple(
        Message(
            turn["role"],
            turn.get("content") or "",
            tuple(call["function"]["name"] for call in turn.get("tool_calls") or ()),
        )
        for turn in body["messages"]
    )
    return Conversation(messages, tuple(tool["function"]["name"] for tool in body.get("tools") or ()))


def answer(model: str, asked: Conversation, said: Reply) -> Iterator[dict[str, Any]]:
    """The lines of an answer in order: text as it comes, the tool calls, the end with its counts."""
    text, calls = (said.text, said.calls) if asked.tools else (as_text(said), ())
    common = {"model": model, "created_at": _now()}
    for piece in pieces(text):
        yield {**common, "message": {"role": "assistant", "content": piece}, "done": False}
    for call in calls:
        function = {"name": call.tool, "arguments": call.arguments}
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        yield {**common, "message": message, "done": False}
    yield {
        **common,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": said.finish,
        "total_duration": 1_000_000,
        "prompt_eval_count": tokens(asked.text),
        "eval_count": tokens(as_text(said)),
    }


def whole(lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The answer as one object, for a client that does not want a stream."""
    parts = list(lines)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(part["message"]["content"] for part in parts),
    }
    if calls := [call for part in parts for call in part["message"].get("tool_calls", ())]:
        message["tool_calls"] = calls
    return {**parts[-1], "message": message}


def _details() -> dict[str, Any]:
    return {"details": {"format": "script", "family": _FAMILY, "parameter_size": "0B"}}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

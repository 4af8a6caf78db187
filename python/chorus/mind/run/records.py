"""Records for the journal, and reading those in it. Pure.

What a model said may hold anything; a record holds only what JSON can say.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final

import orjson

from chorus.mind.thinking import CALLS_MAX, CALLS_MAX_BYTES, TEXT_MAX_BYTES, Reply

# Deeper arguments are no tool's.
_DEPTH_MAX: Final = 16
_INTEGER_MAX: Final = 2**53
# What the executor takes as one record, less room for the other fields. Six bytes for a character that JSON
# escapes: text alone may come to a third of it.
_REPLY_MAX_BYTES: Final = 896 * 1024
_TOOL_MAX_BYTES: Final = 200
_TOO_LARGE: Final = "Your calls were too long together, and none was made. Write less in one reply."
# What other agents are told at once: plans, questions and answers to them.
WORDS_MAX_BYTES: Final = 4096
SUMMARY_MAX_BYTES: Final = 6000
# Of the note with the system prompt.
PROMPT: Final = "prompt"
PROMPT_MAX_BYTES: Final = 132 * 1024
# Times above this are in milliseconds.
_SECONDS_MAX: Final = 1e11


def reply_record(step: int, reply: Reply, *, written: bool = False) -> dict[str, Any]:
    """A model's reply as step `step`; its calls are numbered from 1.

    `written`: the model wrote them into its text, although it could have called tools.
    """
    calls = [
        {"call": number, "tool": bounded(call.tool, _TOOL_MAX_BYTES), "arguments": plain(call.arguments)}
        for number, call in enumerate(reply.calls[:CALLS_MAX], 1)
    ]
    text = bounded(reply.text)
    too_large = len(orjson.dumps([calls, text])) > _REPLY_MAX_BYTES
    return {
        "kind": "reply",
        "step": step,
        "text": text,
        "calls": [] if too_large else calls,
        "unreadable": _TOO_LARGE if too_large else bounded(reply.unreadable),
        "written": written,
        "finish": reply.finish,
        **spent(reply),
    }


def spent(reply: Reply) -> dict[str, Any]:
    """What a reply cost, and who gave it."""
    return {
        "provider": reply.provider,
        "model": reply.model,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "seconds": reply.seconds,
        "usd": reply.usd,
    }


def plan_record(text: str, cost: dict[str, Any]) -> dict[str, Any]:
    """The plan, before it is talked over; without text there was none."""
    return {"kind": "plan", "step": 0, "id": "plan", "text": bounded(text, WORDS_MAX_BYTES), **cost}


def discussed_record(
    plan: str,
    outcome: str,
    session: str = "",
    advice: tuple[dict[str, str], ...] = (),
    address: str = "",
) -> dict[str, Any]:
    """What came of talking the plan over: the plan as it is then, what was said, where it is recorded."""
    return {
        "kind": "plan",
        "step": 0,
        "id": "discussed",
        "text": bounded(plan, WORDS_MAX_BYTES),
        "outcome": bounded(outcome),
        "session": session,
        "advice": list(advice),
        **({"address": address} if address else {}),
    }


def note(kind: str, id: str, text: str, **more: Any) -> dict[str, Any]:
    """A note; the journal takes each id once."""
    return {"kind": "note", "kind2": kind, "id": id, "text": bounded(text), **more}


def prompt_record(prompt: str) -> dict[str, Any]:
    """The system prompt that a run begins with, and goes on with whatever the files say later."""
    return {"kind": "note", "kind2": PROMPT, "id": PROMPT, "text": bounded(prompt, PROMPT_MAX_BYTES)}


def bounded(text: str, limit_bytes: int = TEXT_MAX_BYTES) -> str:
    """The text as Unicode, without what is beyond the limit."""
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it: what JSON cannot say becomes its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _INTEGER_MAX else str(value)[:40] if abs(value) < 10**40 else "a number"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _DEPTH_MAX and isinstance(value, dict):
        return {bounded(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if depth < _DEPTH_MAX and isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    # No longer than all arguments of a reply: what is to be written to a file must not lose its end.
    return bounded(value, CALLS_MAX_BYTES) if isinstance(value, str) else "too deep"


def seconds_of(at: object) -> float | None:
    """A record's time in seconds since 1970; None when it has none."""
    if isinstance(at, bool):
        return None
    if isinstance(at, int | float):
        return at / 1000 if at > _SECONDS_MAX else float(at)
    try:
        return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else None
    except (ValueError, OverflowError):
        return None


def text_of(record: dict[str, Any], key: str) -> str:
    """A field that is to be a text; "" when it is none."""
    value = record.get(key)
    return value if isinstance(value, str) else ""


def number_of(record: dict[str, Any], key: str) -> int:
    """A field that is to be a whole number; 0 when it is none."""
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def items_of(record: dict[str, Any], key: str) -> list[Any]:
    """A field that is to be a list; empty when it is none."""
    value = record.get(key)
    return value if isinstance(value, list) else []

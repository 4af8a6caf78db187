"""A journal of a goal's attempt as the executor would write it, and replies for it, built in a line each."""

from __future__ import annotations

from typing import Any

from chorus.mind.run import Run, RunSettings
from chorus.mind.run.records import reply_record
from chorus.mind.thinking import Reply, ToolCall, Turn

WORD = "k7q2w9"
BEGAN = 1_800_000_000.0


def settings(**changes: Any) -> RunSettings:
    """A large window, four characters a token, nobody to talk to."""
    given: dict[str, Any] = {
        "prompt": "You are a developer.",
        "window": 32768,
        "count": lambda text: len(text) // 4,
    }
    return RunSettings(**(given | changes))


def start(**changes: Any) -> dict[str, Any]:
    """The first record of a journal."""
    return {
        "n": 1,
        "at": BEGAN,
        "kind": "start",
        "title": "Mend the sum",
        "goal": "test_sum fails; mend it",
        "checks": ["pytest -q"],
        "budget": {"steps": 25, "tokens": None, "usd": None},
        "timeout_s": 900,
        "files": {"count": 2, "names": ["sum.py", "test_sum.py"]},
        "word": WORD,
        **changes,
    }


def call(tool: str, **arguments: Any) -> ToolCall:
    """A call of a reply."""
    return ToolCall(tool, arguments)


def reply(*calls: ToolCall, text: str = "", **changes: Any) -> Reply:
    """A reply of the model."""
    given: dict[str, Any] = {
        "text": text,
        "calls": calls,
        "finish": "calls" if calls else "stop",
        "unreadable": "",
        "provider": "ollama",
        "model": "qwen",
        "tokens_in": 100,
        "tokens_out": 20,
        "seconds": 0.5,
        "usd": None,
    }
    return Reply(**(given | changes))


def run_of(*records: dict[str, Any], **changes: Any) -> Run:
    """A run that was told these records."""
    run = Run(settings(**changes))
    for record in records:
        run.apply(record)
    return run


class Story:
    """A journal that grows step by step."""

    def __init__(self, **of_start: Any) -> None:
        self.records: list[dict[str, Any]] = [start(**of_start)]
        self.steps = 0

    def add(self, **record: Any) -> Story:
        """Any record."""
        self.records.append({"n": len(self.records) + 1, "at": BEGAN, **record})
        return self

    def reply(self, *calls: ToolCall, text: str = "", **changes: Any) -> Story:
        """A reply as the next step; with `written` its calls stood in its text."""
        self.steps += 1
        written = changes.pop("written", False)
        made = reply(*calls, text=text, **changes)
        return self.add(**reply_record(self.steps, made, written=written))

    def outcome(self, text: str = "", ok: bool = True, call: int = 1, **more: Any) -> Story:
        """The outcome of a call of the last reply."""
        return self.add(kind="outcome", step=self.steps, call=call, ok=ok, text=text, duration_s=0.1, **more)

    def did(self, tool: str, text: str = "", ok: bool = True, **arguments: Any) -> Story:
        """A whole step with one call."""
        return self.reply(call(tool, **arguments)).outcome(text, ok)

    def note(self, record: dict[str, Any]) -> Story:
        """A record that the loop had asked for."""
        return self.add(**record)

    def run(self, **changes: Any) -> Run:
        """A run that was told all of it."""
        return run_of(*self.records, **changes)


def texts(turns: tuple[Turn, ...]) -> str:
    """All that a model is shown."""
    return "\n\n".join(turn.text for turn in turns)

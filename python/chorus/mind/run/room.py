"""What to leave out when a conversation nears the end of the model's window. Pure.

In order: output of tools older than the last steps, oldest first; then those steps altogether, for a
summary; then, if the last steps alone are too large, the middle of their longest texts. Goal, plan and what
people said stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from chorus.mind.run.records import note
from chorus.mind.run.steps import Act, Step, shortened
from chorus.mind.thinking import ToolSpec, Turn

# Steps that stay as they are.
STEPS_KEPT: Final = 5
# The share of the window from where on something is left out; the reply needs room too.
FULL: Final = 0.75
# How far output is blanked then, so that it is not done again at each step.
AIM: Final = 0.5
# What a turn costs beside its text.
_TURN_TOKENS: Final = 4
# Characters that are kept of each text of the last steps, one after the other until it is enough.
_SMALLER: Final = (4000, 1000, 200)
# What is kept of each argument of a call whose output was left out.
_ARGUMENT_KEPT_CHARS: Final = 200

Count = Callable[[str], int]


def tokens(turns: Iterable[Turn], tools: Iterable[ToolSpec], count: Count) -> int:
    """About how many tokens a request has."""
    total = sum(count(json.dumps(tool.parameters) + tool.description) for tool in tools)
    for turn in turns:
        calls = "".join(json.dumps(call.arguments) for call in turn.calls)
        total += _TURN_TOKENS + count(turn.text) + (count(calls) if calls else 0)
    return total


def blank_old(
    steps: Sequence[Step], total: int, window: int, count: Count, number: int
) -> dict[str, Any] | None:
    """The note that blanks old output, `number` being how many there were before; None: none is left."""
    left, upto = total, None
    for number_of_step, act in ((step.number, act) for step in steps[:-STEPS_KEPT] for act in step.acts):
        if left <= AIM * window:
            break
        saved = _saved(_texts(act, 0), count) if _longer(act.kept, 0) else 0
        if saved > 0:
            left -= saved
            upto = [number_of_step, act.call]
    if upto is None:
        return None
    text = f"output of calls up to step {upto[0]} was left out to save room"
    return note("blanked", f"blanked-{number + 1}", text, upto=upto, kept=0)


def shorten_last(
    steps: Sequence[Step], total: int, window: int, count: Count, number: int
) -> dict[str, Any] | None:
    """The note that shortens what is long in the last steps; None when nothing is."""
    for kept in _SMALLER:
        left, upto = total, None
        for step in steps:
            if left <= FULL * window:
                break
            texts = [(step.text, shortened(step.text, kept))] if _longer(step.kept, kept) else []
            for act in step.acts:
                texts += _texts(act, kept) if _longer(act.kept, kept) else []
            saved = _saved(texts, count)
            if saved > 0:
                left -= saved
                upto = [step.number, max((act.call for act in step.acts), default=0)]
        if upto is not None:
            text = f"long texts up to step {upto[0]} were shortened to save room"
            return note("blanked", f"blanked-{number + 1}", text, upto=upto, kept=kept)
    return None


def blank(steps: Sequence[Step], upto: tuple[int, int], kept: int) -> None:
    """Does what a `blanked` note says. What is left out is forgotten here: the journal has it."""
    for step in steps:
        if kept and step.number <= upto[0] and _longer(step.kept, kept):
            step.text, step.kept = shortened(step.text, kept), kept
        for act in step.acts:
            if (step.number, act.call) <= upto and _longer(act.kept, kept):
                _blank(act, kept)


def _blank(act: Act, kept: int) -> None:
    act.kept = kept
    if act.outcome is not None:
        act.outcome = replace(act.outcome, text=shortened(act.outcome.text, kept))
    of_arguments = max(kept, _ARGUMENT_KEPT_CHARS)
    act.arguments = {
        key: shortened(value, of_arguments) if isinstance(value, str) else value
        for key, value in act.arguments.items()
    }


def _longer(now: int | None, kept: int) -> bool:
    return now is None or now > kept


def _texts(act: Act, kept: int) -> list[tuple[str, str]]:
    """The texts of a call, each with what would be left of it."""
    texts = [value for value in act.arguments.values() if isinstance(value, str)]
    found = [(text, shortened(text, max(kept, _ARGUMENT_KEPT_CHARS))) for text in texts]
    return found if act.outcome is None else [*found, (act.outcome.text, shortened(act.outcome.text, kept))]


def _saved(texts: Sequence[tuple[str, str]], count: Count) -> int:
    return sum(max(0, count(long) - count(short)) for long, short in texts if len(long) > len(short))

"""When a run goes in circles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chorus.mind.run.steps import Act, Step
from chorus.mind.run.tools import in_short

SAME_OUTCOME: Final = 4
SAME_ERROR: Final = 3
WITHOUT_ACTION: Final = 3
TAKING_TURNS: Final = 6
# Replies in a row that cannot be read end a run.
UNREADABLE: Final = 3


def circle(steps: Sequence[Step]) -> str:
    """How these steps go in circles, in words for the model; "" if they do not.

    They are the steps since the model was last told something new.
    """
    last = steps[-WITHOUT_ACTION:]
    if len(last) == WITHOUT_ACTION and all(step.idle for step in last):
        return f"the last {WITHOUT_ACTION} replies held nothing that could be done"
    acts = [act for step in steps for act in step.acts if act.outcome is not None]
    if _alike(acts[-SAME_OUTCOME:], SAME_OUTCOME):
        return f"the same action had the same outcome {SAME_OUTCOME} times: {_short(acts[-1])}"
    if _same_error(acts[-SAME_ERROR:]):
        return f"the same error came {SAME_ERROR} times, last from: {_short(acts[-1])}"
    if _turns(acts[-TAKING_TURNS:]):
        return f"two actions take turns: {_short(acts[-2])} and {_short(acts[-1])}"
    return ""


def unreadable(steps: Sequence[Step]) -> bool:
    """Whether the last replies could not be read."""
    last = steps[-UNREADABLE:]
    return len(last) == UNREADABLE and all(step.format_wrong for step in last)


def _alike(acts: Sequence[Act], times: int) -> bool:
    return len(acts) == times and len({(act.same, act.outcome and act.outcome.same) for act in acts}) == 1


def _same_error(acts: Sequence[Act]) -> bool:
    outcomes = [act.outcome for act in acts if act.outcome is not None]
    if len(outcomes) < SAME_ERROR or any(outcome.ok for outcome in outcomes):
        return False
    # Commands that fail without a word (`grep` that finds nothing) are alike only if they are the same.
    silent = not outcomes[-1].text.strip()
    errors = {(outcome.same, act.same if silent else "") for act, outcome in zip(acts, outcomes, strict=True)}
    return len(errors) == 1


def _turns(acts: Sequence[Act]) -> bool:
    if len(acts) < TAKING_TURNS:
        return False
    even, odd = {act.same for act in acts[::2]}, {act.same for act in acts[1::2]}
    return len(even) == len(odd) == 1 and even != odd


def _short(act: Act) -> str:
    return in_short(act.tool, act.arguments)


def tried(steps: Sequence[Step], limit: int = 12) -> str:
    """What the last steps did, a line for each call."""
    lines = [f"step {step.number}: {_short(act)} -> {_ended(act)}" for step in steps for act in step.acts]
    return "\n".join(lines[-limit:]) or "no action at all"


def _ended(act: Act) -> str:
    if act.wrong:
        return "cannot be done"
    if act.outcome is None:
        return "no outcome"
    if act.outcome.timed_out:
        return "timed out"
    if act.outcome.exit_code is not None:
        return f"exit code {act.outcome.exit_code}"
    return "done" if act.outcome.ok else "failed"

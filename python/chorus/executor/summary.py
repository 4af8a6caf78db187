"""An attempt's outcome and its summary, composed from the facts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from chorus.executor.backend import EndedBy
from chorus.wire.counts import counted

Outcome = Literal["completed", "failed", "cancelled"]
# How goals end beside the ends of a sandbox.
GoalEnd = Literal[
    "finished", "setup", "checks", "steps", "tokens", "money", "stuck", "gave_up", "format", "model"
]
_GOAL_ENDS: Final[dict[str, str]] = {
    "setup": "setup failed",
    "checks": "the checks still fail",
    "steps": "the budget of steps is used up",
    "tokens": "the budget of tokens is used up",
    "money": "the budget of money is used up",
    "stuck": "the run went in circles",
    "gave_up": "the model gave up",
    "format": "the model's replies could not be read",
    "model": "the model was away or refused",
}
# A result is an entry, which holds 256 KiB as it is encoded: a control character takes six bytes of it. What
# follows, together with addresses, figures and the envelope, stays well below.
_COMMANDS_BYTES_MAX: Final = 64 * 1024
_COMMAND_BYTES_MAX: Final = 2048
_SUMMARY_BYTES_MAX: Final = 16 * 1024
_REASON_BYTES_MAX: Final = 8 * 1024
_REASON_CHARS_MAX: Final = 2000
# A list of artifacts that takes more travels as a blob.
LIST_BYTES_MAX: Final = 64 * 1024
LISTED_MAX: Final = 1000
LEFT_OUT_LISTED_MAX: Final = 100


@dataclass(slots=True)
class Facts:
    """What happened in an attempt."""

    commands: list[dict[str, Any]] = field(default_factory=list)
    total_commands: int = 0
    ended_by: EndedBy | GoalEnd = "exit"
    exit_code: int | None = None
    note: str = ""
    timeout_s: float = 0.0
    artifacts: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)
    output: dict[str, int] = field(default_factory=dict)
    running_s: float = 0.0
    protected: bool = True
    # Of a goal: the model's own summary, and what the result reports.
    is_goal: bool = False
    goal_summary: str = ""
    goal: dict[str, Any] = field(default_factory=dict)


def outcome(facts: Facts) -> Outcome:
    """Completed when every command ended with 0."""
    if facts.ended_by == "cancel":
        return "cancelled"
    if facts.is_goal:
        return "completed" if facts.ended_by == "finished" else "failed"
    done = len(facts.commands) == facts.total_commands and facts.exit_code == 0
    return "completed" if facts.ended_by == "exit" and done else "failed"


def reason(facts: Facts) -> str:
    """Why it ended so, in words; empty for a plain success."""
    number = len(facts.commands)
    code = facts.exit_code
    note = f": {facts.note}" if facts.note else ""
    if facts.is_goal and facts.ended_by != "cancel":
        return _goal_reason(facts, note)
    match facts.ended_by:
        case "cancel":
            return "cancelled while it ran"
        case "timeout":
            return (
                f"timed out after {facts.timeout_s:g} s in command {number} of {facts.total_commands}{note}"
            )
        case "out_of_memory":
            return f"out of memory in command {number} of {facts.total_commands}{note}"
        case "pids":
            return f"too many processes in command {number} of {facts.total_commands}{note}"
        case "disk":
            return f"the sandbox's disk was full{note}"
        case "daemon" | "lost":
            return f"the sandbox was lost{note}"
        case "exit":
            if code == 0 and number == facts.total_commands:
                return ""
            if code is None:
                return facts.note or "no command was run"
            return f"command {number} of {facts.total_commands} exited with {code}{note}"
        case _:
            return f"{facts.ended_by}{note}"


def _goal_reason(facts: Facts, note: str) -> str:
    match facts.ended_by:
        case "finished":
            return ""
        case "timeout":
            return f"timed out after {facts.timeout_s:g} s{note}"
        case "out_of_memory":
            return f"the sandbox ran out of memory{note}"
        case "exit" | "pids" | "disk" | "daemon" | "lost":
            return facts.note or "the sandbox ended"
        case ended_by:
            return f"{_GOAL_ENDS.get(ended_by, ended_by)}{note}"


def compose(facts: Facts) -> str:
    """Two or three sentences for people."""
    parts = []
    ran = len(facts.commands)
    if facts.is_goal:
        parts += _goal_words(facts)
    elif outcome(facts) == "completed":
        what = "The command" if ran == 1 else f"All {ran} commands"
        parts.append(f"{what} succeeded in {facts.running_s:.1f} s.")
    else:
        said = reason(facts)
        parts.append(said[:1].upper() + said[1:] + ".")
        if facts.commands:
            parts.append(f"Last command: {facts.commands[-1]['command']}")
    if written := sum(facts.output.values()):
        parts.append(f"{counted(written, 'byte')} of output.")
    if facts.artifacts:
        parts.append(f"{counted(facts.artifacts, 'artifact')} kept.")
    if facts.left_out:
        named = ", ".join(item["path"] or item["reason"] for item in facts.left_out[:3])
        more = len(facts.left_out) - 3
        parts.append(f"Left out of the artifacts: {named}{f' and {more} more' if more > 0 else ''}.")
    if not facts.protected:
        parts.append("The image has no protected session: the task could have forged its exit codes.")
    return " ".join(parts)


def _goal_words(facts: Facts) -> list[str]:
    """What came of a goal, and what the model says of it."""
    goal = facts.goal
    taken = f"{counted(goal.get('steps', 0), 'step')} and {facts.running_s:.1f} s"
    if outcome(facts) == "completed":
        checked = "nothing checked it" if goal.get("unchecked") else "its checks passed"
        parts = [f"The goal was reached in {taken}; {checked}."]
    else:
        said = reason(facts)
        parts = [f"{said[:1].upper()}{said[1:]}.", f"It took {taken}."]
    patch = goal.get("patch")
    parts.append(f"{counted(patch['files'], 'file')} changed." if patch else "No file was changed.")
    if facts.goal_summary:
        parts.append(f"The model says: {facts.goal_summary}")
    return parts


def bare(body: Mapping[str, Any], why: str) -> dict[str, Any]:
    """The result without what may not fit into an entry: how the attempt ended stays, and why the rest is not
    there is said.
    """
    note = f"its details could not be entered: {why}"
    said = shorten(f"{body['reason']}; {note}" if body["reason"] else note, _REASON_BYTES_MAX)
    return {
        "task_id": body["task_id"],
        "attempt": body["attempt"],
        "outcome": body["outcome"],
        "reason": said[:_REASON_CHARS_MAX],
        "exit_code": body["exit_code"] if _is_exit_code(body["exit_code"]) else None,
        "summary": said[:_REASON_CHARS_MAX],
        "commands": [],
        "artifacts": [],
        "usage": {},
        "ended_by": body["ended_by"],
        "decision": body["decision"],
        "timings": {name: max(0, time) for name, time in body["timings"].items()},
        **({"goal": body["goal"]} if "goal" in body else {}),
    }


def _is_exit_code(value: object) -> bool:
    return isinstance(value, int) and -(2**31) <= value < 2**32


def encoded_bytes(value: object) -> int:
    """What a value takes in an entry. Texts hold no lone surrogates."""
    return len(orjson.dumps(value))


def shorten(text: str, bytes_max: int) -> str:
    """The text, cut visibly to so many bytes as they are encoded in an entry."""
    text = text.encode("utf-8", "replace").decode()
    if encoded_bytes(text) <= bytes_max:
        return text
    # The longest beginning that fits: what it takes grows with it.
    fits, too_long = 0, min(len(text), bytes_max)
    while fits + 1 < too_long:
        middle = (fits + too_long) // 2
        if encoded_bytes(text[:middle] + "…") <= bytes_max:
            fits = middle
        else:
            too_long = middle
    return text[:fits] + "…"


def shorten_reason(text: str) -> str:
    """A reason as it fits into a result."""
    return shorten(text[:_REASON_CHARS_MAX], _REASON_BYTES_MAX)


def shorten_summary(text: str) -> str:
    """A summary as it fits into a result."""
    return shorten(text, _SUMMARY_BYTES_MAX)


def shorten_commands(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Commands for the entry: long ones are cut, visibly; the whole ones stand in the task."""
    room = min(_COMMAND_BYTES_MAX, _COMMANDS_BYTES_MAX // max(1, len(commands)))
    return [{**item, "command": shorten(item["command"], room)} for item in commands]


def artifact_list(items: Sequence[object], left_out: Sequence[object]) -> bytes:
    """The blob that lists the artifacts of a result which they do not fit into: the same on all agents."""
    return orjson.dumps({"artifacts": items, "left_out": left_out})


def fits_entry(items: Sequence[object], left_out: Sequence[object]) -> bool:
    """Whether a list of artifacts may stand in the result's entry itself."""
    few = len(items) <= LISTED_MAX and len(left_out) <= LEFT_OUT_LISTED_MAX
    return few and encoded_bytes([items, left_out]) <= LIST_BYTES_MAX

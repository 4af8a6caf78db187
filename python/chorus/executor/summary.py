"""An attempt's outcome and its summary, composed from the facts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from chorus.executor.backend import EndedBy

Outcome = Literal["completed", "failed", "cancelled"]
# Beside commands and artifacts in an entry of 256 KiB.
_COMMAND_CHARS_MAX = 500
_REASON_CHARS_MAX = 2000
_COMMANDS_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class Facts:
    """What happened in an attempt."""

    commands: list[dict[str, Any]] = field(default_factory=list)
    total_commands: int = 0
    ended_by: EndedBy = "exit"
    exit_code: int | None = None
    note: str = ""
    timeout_s: float = 0.0
    artifacts: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    output: dict[str, int] = field(default_factory=dict)
    running_s: float = 0.0
    protected: bool = True


def outcome(facts: Facts) -> Outcome:
    """Completed when every command ended with 0."""
    if facts.ended_by == "cancel":
        return "cancelled"
    done = len(facts.commands) == facts.total_commands and facts.exit_code == 0
    return "completed" if facts.ended_by == "exit" and done else "failed"


def reason(facts: Facts) -> str:
    """Why it ended so, in words; empty for a plain success."""
    number = len(facts.commands)
    code = facts.exit_code
    note = f": {facts.note}" if facts.note else ""
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


def compose(facts: Facts) -> str:
    """Two or three sentences for people."""
    parts = []
    ran = len(facts.commands)
    if outcome(facts) == "completed":
        what = "The command" if ran == 1 else f"All {ran} commands"
        parts.append(f"{what} succeeded in {facts.running_s:.1f} s.")
    else:
        said = reason(facts)
        parts.append(said[:1].upper() + said[1:] + ".")
        if facts.commands:
            parts.append(f"Last command: {facts.commands[-1]['command']}")
    if written := sum(facts.output.values()):
        parts.append(f"{written} bytes of output.")
    if facts.artifacts:
        parts.append(f"{facts.artifacts} artifact{'s' if facts.artifacts > 1 else ''} kept.")
    if facts.refused:
        named = ", ".join(item["path"] or item["reason"] for item in facts.refused[:3])
        parts.append(
            f"{len(facts.refused)} artifact{'s' if len(facts.refused) > 1 else ''} refused: {named}."
        )
    if not facts.protected:
        parts.append("The image has no protected session: the task could have forged its exit codes.")
    return " ".join(parts)


def bare(body: dict[str, Any], why: str) -> dict[str, Any]:
    """The result without what may not fit into an entry: how the attempt ended stays, and why the rest is not
    there is said.
    """
    note = f"its details could not be entered: {why}"
    said = f"{body['reason']}; {note}" if body["reason"] else note
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
    }


def _is_exit_code(value: object) -> bool:
    return isinstance(value, int) and -(2**31) <= value < 2**32


def shorten(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Commands for the entry: long ones are cut, visibly; the whole ones stand in the task."""
    room = max(80, min(_COMMAND_CHARS_MAX, _COMMANDS_BYTES_MAX // max(1, len(commands)) // 4))
    return [
        {
            **item,
            "command": item["command"] if len(item["command"]) <= room else item["command"][: room - 1] + "…",
        }
        for item in commands
    ]

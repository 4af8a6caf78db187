"""Tasks and votes as the HTTP API shows them: JSON with RFC 3339 times, durations in seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from chorus.table.rows import LONG_FIELDS, AttemptRow, BallotRow, TaskRow
from chorus.wire.times import rfc3339

# What may stand in an ETag; whether it is the right hash, its reader finds out.
_SHA256 = re.compile(r"[0-9a-f]{1,64}")
# What a list of tasks leaves out, being long or costly, and what it has of a result.
_LONG = frozenset({*LONG_FIELDS, "attempts", "lost"})
_SHORT_RESULT = frozenset({"exit_code", "ended_by", "summary", "decision"})
_MODE = re.compile(r"0[0-7]{3}")
_RESULT = ("exit_code", "summary", "commands", "artifacts", "usage", "ended_by")


def view(
    task: TaskRow,
    attempts: Iterable[AttemptRow] = (),
    *,
    leader: str | None = None,
    replicas: int | None = None,
    lost: Iterable[str] = (),
) -> dict[str, Any]:
    """The task as JSON; `leader` is the agent id of the mesh's leader, `replicas` what is known of its
    copies, `lost` what of it no member holds any more.
    """
    body = {key: value for key, value in task.task.items() if key not in ("task_id", "submitted_by")}
    return {
        "task_id": task.task_id,
        **body,
        "submitted_by": task.submitted_by,
        "state": task.state,
        "reason": task.reason,
        "attempt": task.attempt,
        "agent_id": task.agent_id,
        "leader": leader,
        "replicas": max(1, len(task.holders)) if replicas is None else replicas,
        "provisional": task.provisional,
        "created_at": rfc3339(task.created_at),
        "claimed_at": _time(task.claimed_at),
        "started_at": _time(task.started_at),
        "finished_at": _time(task.finished_at),
        "removed_at": _time(task.removed_at),
        "lost": list(lost),
        "waiting_s": task.waiting_s,
        "pulling_s": task.pulling_s,
        "running_s": task.running_s,
        "attempts": [attempt_view(attempt) for attempt in attempts],
        "result": _result(task.result, task.decision),
    }


def listed_view(task: TaskRow, *, leader: str | None = None) -> dict[str, Any]:
    """The task in short, as a list has it: what can be long stands in the task alone."""
    shown = {key: value for key, value in view(task, leader=leader).items() if key not in _LONG}
    if shown["result"] is not None:
        shown["result"] = {key: value for key, value in shown["result"].items() if key in _SHORT_RESULT}
    return shown


def attempt_view(attempt: AttemptRow) -> dict[str, Any]:
    """One attempt as JSON."""
    return {
        "attempt": attempt.attempt,
        "agent_id": attempt.agent_id,
        "state": attempt.state,
        "reason": attempt.reason,
        "awarded_at": rfc3339(attempt.awarded_at),
        "claimed_at": _time(attempt.claimed_at),
        "started_at": _time(attempt.started_at),
        "finished_at": _time(attempt.finished_at),
        "image": attempt.image,
        "pulling_s": attempt.pulling_s,
        "exit_code": (attempt.result or {}).get("exit_code"),
    }


def ballot_view(row: BallotRow) -> dict[str, Any]:
    """A ballot as the API shows it."""
    return {
        "decision": row.hash,
        "state": row.state,
        "round": row.round,
        "quorum": row.quorum,
        "voters": row.voters,
        "approve": row.approve,
        "reject": row.reject,
        "abstain": row.abstain,
        "opened_at": rfc3339(row.opened_at),
        "closes_at": rfc3339(row.closes_at),
        "ended_at": None if row.ended_at is None else rfc3339(row.ended_at),
        "record": row.record,
        "votes": [
            {
                "voter": vote.voter,
                "agent_id": vote.agent_id,
                "choice": vote.choice,
                "reason": vote.reason,
                "by": vote.by,
                "at": rfc3339(vote.at_ms),
            }
            for vote in row.votes
        ],
    }


def _result(result: dict[str, Any] | None, decision: str | None) -> dict[str, Any] | None:
    if result is None:
        return None
    shown = {key: result.get(key) for key in _RESULT}
    # A table may hold results from before their form was checked.
    for name in ("commands", "context"):
        shown[name] = result[name] if isinstance(result.get(name), list) else []
    shown["artifacts"], shown["left_out"] = artifacts(result), left_out(result)
    if (blob := artifacts_blob(result)) is not None:
        shown["artifacts_blob"] = blob
    shown["usage"] = shown["usage"] if isinstance(shown["usage"], dict) else {}
    shown["decision"] = decision or result.get("decision")
    if isinstance(goal := result.get("goal"), dict):
        shown["goal"], shown["patch"] = goal, goal.get("patch")
    return shown


def artifacts(result: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The artifacts of a result that can be asked for: those with a path, a size and a hash."""
    listed = (result or {}).get("artifacts")
    return [item for item in listed if _is_artifact(item)] if isinstance(listed, list) else []


def left_out(result: dict[str, Any] | None) -> list[dict[str, str]]:
    """What a result says no artifacts came of, and why."""
    listed = (result or {}).get("left_out")
    return [item for item in listed if _is_left_out(item)] if isinstance(listed, list) else []


def artifacts_blob(result: dict[str, Any] | None) -> dict[str, Any] | None:
    """The blob that lists a result's artifacts (`sha256`, `size`, `count`), when they are too many for it."""
    blob = (result or {}).get("artifacts_blob")
    return blob if isinstance(blob, dict) else None


def mode(artifact: dict[str, Any]) -> int:
    """The permissions of an artifact."""
    said = artifact.get("mode")
    return int(said, 8) if isinstance(said, str) and _MODE.fullmatch(said) else 0o644


def _is_artifact(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    path, size, sha256 = item.get("path"), item.get("size"), item.get("sha256")
    # Whoever saves it under its path stays in a folder of theirs.
    named = isinstance(path, str) and path.strip("/") == path != "" and ".." not in path.split("/")
    sized = type(size) is int and size >= 0
    return named and sized and isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None


def _is_left_out(item: object) -> bool:
    return (
        isinstance(item, dict) and isinstance(item.get("path"), str) and isinstance(item.get("reason"), str)
    )


def _time(stamp_ms: int | None) -> str | None:
    return None if stamp_ms is None else rfc3339(stamp_ms)

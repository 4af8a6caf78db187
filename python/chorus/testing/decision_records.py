"""Signed decision records of every kind, as they are and as they should not be."""

from __future__ import annotations

import base64
from typing import Any

from chorus import decisions
from chorus.core import Identity

TASK = "01J00000000000000000000001"
AUTHOR = Identity.generate()
OTHER = Identity.generate()
HASH = "ab" * 32
NOW = "2026-11-25T01:02:03.004Z"

DECIDED: dict[str, dict[str, Any]] = {
    "task_result": {"outcome": "completed", "reason": "", "exit_code": 0, "ended_by": "exit"},
    "hmmm_outcome": {
        "outcome": "agreed", "reason": "r", "session_id": "s1", "participants": [AUTHOR.peer_id],
        "transcript_sha256": HASH,
    },
    "vote": {
        "outcome": "approved", "reason": "", "decision": HASH, "round": 1, "quorum": 1, "voters": 1,
        "approve": 1, "reject": 0, "abstain": 0, "opened_at": NOW,
        "votes": [{"voter": OTHER.peer_id, "choice": "approve", "reason": "ä", "by": "", "at": NOW}],
    },
}  # fmt: skip

GOAL: dict[str, Any] = {
    "provider": "ollama", "model": "qwen2.5-coder:1.5b", "prompts_sha256": HASH, "steps": 3, "calls": 4,
    "tokens_in": 4_000, "tokens_out": 300, "usd": None, "model_s": 12.5, "unchecked": False,
    "checks": [{"command": "pytest -q", "exit_code": 0, "duration_s": 1.25}],
    "patch": {
        "sha256": HASH, "size": 321, "files": 1, "left_out": [{"path": "target", "reason": "a build folder"}],
    },
    "transcript_sha256": HASH, "discussion": f"ucxl://a-1:agent@my-project:{TASK}/*^/2/discussion.json",
}  # fmt: skip


def made(kind: Any = "task_result", identity: Identity = AUTHOR, **changes: Any) -> dict[str, Any]:
    """A record without its signature; `changes` are those of `build`."""
    values: dict[str, Any] = {
        "kind": kind, "peer": identity.peer_id, "agent_id": "a-1", "role": "", "project": "my/project",
        "task_id": TASK, "attempt": 2, "mesh": "m", "title": "t", "decided": DECIDED[kind],
        "summary": "s", "inputs": decisions.inputs(source_kind="inline", source_sha256=HASH, image="i"),
        "commands": [{"command": "true", "exit_code": 0, "duration_s": 0.25}],
        "artifacts": [{"path": "a/b.txt", "size": 3, "sha256": HASH}],
        "usage": {"cpu_s": 0.5, "memory_peak_bytes": 1}, "created_at": NOW,
        "influenced_by": ["ucxl://b:agent@chorus:01J00000000000000000000002/*^/1/decision.json"],
    }  # fmt: skip
    return decisions.build(**{**values, **changes})


def signed(record: dict[str, Any], identity: Identity = AUTHOR) -> bytes:
    """The record signed by `identity`, whoever it says it is."""
    unsigned = {name: value for name, value in record.items() if name != "sig"}
    signature = identity.sign(decisions.encode(unsigned))
    return decisions.encode({**unsigned, "sig": base64.b64encode(signature).decode()})

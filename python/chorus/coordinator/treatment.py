"""What each field of the mesh's entries may hold, as far as secrets are concerned: the one list of it.

How a field is treated is carried out in `chorus.coordinator.redaction`. A test fails when an entry has a
field that is not declared here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from chorus.wire.task import DESCRIPTION_MAX_BYTES, TITLE_MAX_CHARS


class Leaf(Enum):
    """How one value is treated that is no free text."""

    # Refused with a finding: it names something, and would name nothing once it is redacted.
    NAME = auto()
    # Passed on: ids, hashes, numbers, times and words of a closed set, all checked elsewhere.
    OPAQUE = auto()
    # Passed on although it may hold a secret: without it the task could not run. The submitter is told.
    WHOLE = auto()
    # The value of an environment variable: moved to the sealed secrets at submission, refused later.
    VARIABLE = auto()
    # Sealed to the members; refused when it is not.
    SEALED = auto()


@dataclass(frozen=True, slots=True)
class Text:
    """Free text: redacted, then cut to what the entry may hold, as a redaction can be the longer text."""

    chars_max: int | None = None
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """An object whose names are chosen by somebody."""

    values: Treatment


# A list stands for an array whose items are all treated alike, a dict for an object with these fields.
Treatment = Leaf | Text | Named | list["Treatment"] | dict[str, "Treatment"]

_ID: Final = Leaf.OPAQUE
_REASON: Final = Text(2000)
_WORD: Final = Text(128)
_ADDRESS: Final = Text(1024)
# Of fields that no model bounds.
_ANY: Final = Text()

_COMMAND: Final[Treatment] = {"command": _ANY, "exit_code": Leaf.OPAQUE, "duration_s": Leaf.OPAQUE}
_LEFT_OUT: Final[Treatment] = {"path": Text(4096), "reason": _REASON}

# A task, as it stands in a `submit` or `goal` entry.
TASK: Final[dict[str, Treatment]] = {
    "task_id": _ID,
    "title": Text(TITLE_MAX_CHARS),
    "description": Text(bytes_max=DESCRIPTION_MAX_BYTES),
    "language": Leaf.NAME,
    "commands": [Leaf.WHOLE],
    "source": {
        "kind": Leaf.OPAQUE,
        "url": Leaf.NAME,
        "ref": Leaf.NAME,
        "files": Named(Leaf.WHOLE),
        "sha256": _ID,
    },
    "env": Named(Leaf.VARIABLE),
    "secrets": Named(Leaf.SEALED),
    "workdir": Leaf.NAME,
    "stdin": Leaf.WHOLE,
    "stdin_sha256": _ID,
    "project": Leaf.NAME,
    "required_role": Leaf.NAME,
    "required_expertise": [Leaf.NAME],
    "specialization": Leaf.NAME,
    "priority": Leaf.OPAQUE,
    "timeout_s": Leaf.OPAQUE,
    "start_by": Leaf.OPAQUE,
    "resources": dict.fromkeys(("cpus", "memory_mb", "pids", "disk_mb"), Leaf.OPAQUE),
    "network": Leaf.OPAQUE,
    "artifacts": [Leaf.NAME],
    "depends_on": [_ID],
    "max_attempts": Leaf.OPAQUE,
    "idempotency_key": Leaf.NAME,
    "submitted_by": Leaf.NAME,
    "submitted_at": Leaf.OPAQUE,
    "setup": [Leaf.WHOLE],
    "checks": [Leaf.WHOLE],
    "protected": [Leaf.NAME],
    "budget": dict.fromkeys(("steps", "tokens", "usd"), Leaf.OPAQUE),
    "required_model": Leaf.NAME,
    "local_model": Leaf.OPAQUE,
    "continues": _ID,
}

_SUBMISSION: Final[dict[str, Treatment]] = {
    "task_id": _ID,
    "task": TASK,
    "submitter": _ID,
    "submitted_by": Leaf.NAME,
    "vouched_by": _ID,
    "holders": [_ID],
    "submitted_at": Leaf.OPAQUE,
}
_RESULT: Final[dict[str, Treatment]] = {
    "task_id": _ID,
    "attempt": Leaf.OPAQUE,
    "outcome": Leaf.OPAQUE,
    "reason": _REASON,
    "exit_code": Leaf.OPAQUE,
    "summary": Text(8000),
    "commands": [_COMMAND],
    "artifacts": [{"path": _ANY, "size": Leaf.OPAQUE, "sha256": _ID, "mode": Leaf.OPAQUE}],
    "left_out": [_LEFT_OUT],
    "artifacts_blob": {"sha256": _ID, "size": Leaf.OPAQUE, "count": Leaf.OPAQUE},
    "usage": _ANY,
    "ended_by": Leaf.OPAQUE,
    "decision": _ADDRESS,
    "timings": _ANY,
    "context": [_ADDRESS],
}
_GOAL_REPORT: Final[dict[str, Treatment]] = {
    "provider": _WORD,
    "model": _WORD,
    "prompts_sha256": _ID,
    **dict.fromkeys(
        ("steps", "calls", "tokens_in", "tokens_out", "usd", "model_s", "unchecked"), Leaf.OPAQUE
    ),
    "checks": [_COMMAND],
    "patch": {"sha256": _ID, "size": Leaf.OPAQUE, "files": Leaf.OPAQUE, "left_out": [_LEFT_OUT]},
    "transcript_sha256": _ID,
    "discussion": _ADDRESS,
}
_IMPORTED_TASK: Final[dict[str, Treatment]] = dict.fromkeys(("task_id", "why", "story", "parts"), Leaf.OPAQUE)

# Entries that an agent's coordinator proposes. What an agent says of itself and of its attempts is redacted
# rather than refused, also where it is a name: a result must count and a member be known whatever they hold.
ENTRIES: Final[dict[str, dict[str, Treatment]]] = {
    "submit": _SUBMISSION,
    "goal": _SUBMISSION,
    "cancel": {"task_id": _ID, "by": _WORD, "signer": _ID, "reason": _REASON},
    "retry": {"task_id": _ID, "by": _WORD},
    "remove": {"task_id": _ID, "by": _WORD},
    "holders": {"task_id": _ID, "attempt": Leaf.OPAQUE, "peer": _ID},
    "member": {
        "agent_id": _WORD,
        "role": _WORD,
        "expertise": [_WORD],
        "specialization": _WORD,
        "max_tasks": Leaf.OPAQUE,
        "languages": [_WORD],
        "images": [Text(512)],
        "accepting": Leaf.OPAQUE,
        "reason": _REASON,
        "version": _WORD,
        "table_version": Leaf.OPAQUE,
    },
    "models": {"models": [{"provider": _WORD, "model": _WORD, "local": Leaf.OPAQUE}], "reason": _REASON},
    "table_version": {"version": Leaf.OPAQUE},
    "presence": {"peer": _ID, "present": Leaf.OPAQUE, "reason": _REASON},
    "award": {"task_id": _ID, "attempt": Leaf.OPAQUE, "agent": _ID},
    "decline": {"task_id": _ID, "attempt": Leaf.OPAQUE, "reason": _REASON},
    "claim": {"task_id": _ID, "attempt": Leaf.OPAQUE},
    "started": {
        "task_id": _ID,
        "attempt": Leaf.OPAQUE,
        "image": Text(512),
        "pulling_s": Leaf.OPAQUE,
    },
    "result": _RESULT,
    "goal_result": {**_RESULT, "goal": _GOAL_REPORT},
    "give_back": {"task_id": _ID, "attempt": Leaf.OPAQUE, "reason": _REASON},
    "release": {"task_id": _ID, "attempt": Leaf.OPAQUE, "reason": _REASON, "cause": Leaf.OPAQUE},
    "reoffer": {"task_id": _ID, "attempt": Leaf.OPAQUE, "reason": _REASON},
    "expire": {"task_id": _ID, "reason": _REASON},
    "dependency_failed": {"task_id": _ID},
    "waiting": {"tasks": [{"task_id": _ID, "reason": _REASON}]},
    "decision": {
        "task_id": _ID,
        "attempt": Leaf.OPAQUE,
        "kind": _WORD,
        "hash": _ID,
        "address": _ADDRESS,
        "agent": _WORD,
        "decides": _ID,
        "size": Leaf.OPAQUE,
    },
    "version": {
        "address": Leaf.NAME,
        "hash": _ID,
        "stored": _ID,
        "kind": Leaf.OPAQUE,
        "size": Leaf.OPAQUE,
        "content_type": Leaf.NAME,
        "tombstone": Leaf.OPAQUE,
        "create": Leaf.OPAQUE,
        "live": Leaf.OPAQUE,
        "expect": Leaf.OPAQUE,
    },
    "ballot": {"hash": _ID, "quorum": Leaf.OPAQUE, "voters": [_ID], "open_ms": Leaf.OPAQUE},
    "vote": {
        "hash": _ID,
        "round": Leaf.OPAQUE,
        "choice": Leaf.OPAQUE,
        "reason": _REASON,
        "by": Leaf.NAME,
    },
    "ballot_end": {"hash": _ID, "round": Leaf.OPAQUE},
    # What another mesh had: it was cleaned when it was said there, and stays what it was.
    "import_part": dict.fromkeys(("of", "n", "text"), Leaf.OPAQUE),
    "import_task": _IMPORTED_TASK,
    "import_goal": _IMPORTED_TASK,
    "import_ballot": dict.fromkeys(("hash", "story", "parts"), Leaf.OPAQUE),
    "import_decision": dict.fromkeys(
        ("hash", "address", "kind", "task_id", "attempt", "author", "at_ms"), Leaf.OPAQUE
    ),
    "import_version": dict.fromkeys(
        (
            "origin",
            "address",
            "number",
            "hash",
            "stored",
            "kind",
            "size",
            "content_type",
            "author",
            "agent_id",
            "role",
            "deleted",
            "at_ms",
        ),
        Leaf.OPAQUE,
    ),
    "import_member": dict.fromkeys(
        ("peer", "agent_id", "role", "joined_at", "removed_at", "reason"), Leaf.OPAQUE
    ),
}

# Entries that the core makes by itself, of settings, peer ids, numbers and reasons that agents are made with;
# nobody's words reach them.
MADE_BY_CORE: Final = frozenset({"found", "leader", "join", "voter", "removal"})

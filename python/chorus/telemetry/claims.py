"""What an agent claims at a beat, out of what its processes noted of their operations. Pure.

A note is what `chorus.telemetry.operations` makes; other processes of this agent send them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from chorus.telemetry.frames import NOTES_MAX_CHARS, State
from chorus.wire.schema import Schema

# Phases of the operations that are work, in their order: the state claimed, and the share of the way behind.
_STATES: Final[dict[str, dict[str, tuple[State, float]]]] = {
    "task": {
        "waiting": ("blocked", 0.0),
        "pulling": ("planning", 0.25),
        "running": ("executing", 0.5),
        "publishing": ("reviewing", 0.75),
    },
    "hmmm_session": {
        "discussing": ("planning", 0.0),
        "escalated": ("blocked", 0.25),
        "recording": ("reviewing", 0.75),
    },
}
# Of a discussion every outcome is an end as it should be.
_ENDED: Final[dict[str, State]] = {"completed": "completed", "failed": "failed", "cancelled": "failed"}
# As many tasks are named at one beat; an agent may be told to run a thousand.
CLAIMS_MAX: Final = 64


class Phase(Schema):
    """A phase that is over."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=64)]
    duration_s: float


class Note(Schema):
    """An operation at one moment. `phase` is empty and `outcome` set when it has ended."""

    model_config = ConfigDict(extra="forbid")

    operation_id: Annotated[str, Field(max_length=128)]
    kind: Annotated[str, Field(max_length=64)]
    subject: dict[str, str | int]
    started_at: float
    phase: Annotated[str, Field(max_length=64)]
    phases: tuple[Phase, ...]
    duration_s: float
    outcome: Annotated[str, Field(max_length=64)]


class Work:
    """The operations under way that are work: tasks and discussions."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Note] = OrderedDict()

    def take(self, note: Note) -> None:
        """Keeps what an operation said last."""
        if note.kind not in _STATES:
            return
        if note.outcome:
            self._open.pop(note.operation_id, None)
            return
        self._open[note.operation_id] = note
        if len(self._open) > 2 * CLAIMS_MAX:
            self._open.popitem(last=False)

    def claims(self) -> list[dict[str, Any]]:
        """The claims for one beat, without what is the same in all: one for each work, else `idle`."""
        if not self._open:
            return [{"state": "idle", "notes": "waiting for tasks"}]
        return [claim_of(note) for note in list(self._open.values())[-CLAIMS_MAX:]]


def claim_of(note: Note) -> dict[str, Any]:
    """What one operation is claimed to be in; of work that has ended, how it ended."""
    if note.outcome:
        usual: State = "completed" if note.kind == "hmmm_session" else "blocked"
        state, progress = _ENDED.get(note.outcome, usual), 1.0
    else:
        state, progress = _STATES.get(note.kind, {}).get(note.phase, ("executing", 0.0))
    said = f"{note.kind} {note.outcome or note.phase}"
    return {
        "task_id": str(note.subject.get("task_id") or note.operation_id),
        "state": state,
        "progress": progress,
        "notes": said[:NOTES_MAX_CHARS],
        "metadata": {"operation_id": note.operation_id},
    }


def ended_work(note: Note) -> bool:
    """Whether the note says how a task or a discussion ended."""
    return bool(note.outcome) and note.kind in _STATES

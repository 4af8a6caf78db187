"""What entries say by which a member brings along what another mesh had: schemas that are frozen.

Their rules are `chorus.table.imports`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from chorus.table import entries as facts
from chorus.table.entries import Address, Fact, Image, Number, Peer, Seconds
from chorus.table.rows import AttemptState, TaskState
from chorus.table.submitted import (
    TIME_MAX_MS,
    MaybeSha256,
    Name,
    Sha256,
    SubmittedGoal,
    SubmittedTask,
    TaskId,
)
from chorus.table.votes import VOTERS_MAX

# As many parts, of so many characters each, as one story takes: a character is four bytes at most, and an
# entry holds 256 KiB.
PARTS_MAX: Final = 512
PART_MAX_CHARS: Final = 50_000
# Reasons that the table makes of others are longer than those.
_REASON_MAX_CHARS: Final = 4096

Stamp = Annotated[int, Field(ge=0, le=TIME_MAX_MS)]
Why = Annotated[str, Field(max_length=_REASON_MAX_CHARS)]
MeshId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
AttemptNumber = Annotated[int, Field(ge=1, le=2**53)]


def _result(value: object) -> facts.Result:
    """A result as the table keeps it, which leaves out whose it is."""
    if not isinstance(value, dict):
        raise ValueError("not a result")
    return facts.Result.model_validate({**value, "task_id": "0" * 26, "attempt": 0})


def _goal_result(value: object) -> facts.Result:
    """A result of a goal, which need not be one with a report of its model."""
    if not isinstance(value, dict) or "goal" not in value:
        return _result(value)
    return facts.GoalResult.model_validate({**value, "task_id": "0" * 26, "attempt": 0})


ResultBody = Annotated[facts.Result, BeforeValidator(_result)]
GoalResultBody = Annotated[facts.Result, BeforeValidator(_goal_result)]


class AttemptStory(Fact):
    """An attempt, as the mesh that is no more had it."""

    attempt: AttemptNumber
    agent: Peer
    state: AttemptState
    awarded_at: Stamp
    reason: Why = ""
    claimed_at: Stamp | None = None
    started_at: Stamp | None = None
    finished_at: Stamp | None = None
    image: Image | None = None
    pulling_s: Seconds | None = None
    result: ResultBody | None = None


class GoalAttemptStory(AttemptStory):
    """An attempt at a goal."""

    result: GoalResultBody | None = None


class ChangeStory(Fact):
    """One step of a task's story."""

    attempt: Number
    state: TaskState
    at_ms: Stamp
    reason: Why = ""


class SupersededStory(Fact):
    """A result that came too late."""

    attempt: AttemptNumber
    author: Peer
    result: ResultBody


class GoalSupersededStory(SupersededStory):
    """A result of a goal that came too late."""

    result: GoalResultBody


class RecordedStory(Fact):
    """The record of an attempt's result."""

    attempt: AttemptNumber
    hash: Sha256


class RemovedStory(Fact):
    """When and by whom a task's output was removed."""

    at_ms: Stamp
    by: Name = ""


class TaskStory(Fact):
    """All that the mesh which is no more knew of a task."""

    task: SubmittedTask
    state: TaskState
    reason: Why = ""
    attempt: Number = 0
    agent: Peer | None = None
    submitter: Peer
    submitted_by: Name
    vouched_by: Peer
    holders: Annotated[list[Peer], Field(max_length=64)] = Field(default_factory=list)
    start_by: Stamp | None = None
    created_at: Stamp
    claimed_at: Stamp | None = None
    started_at: Stamp | None = None
    finished_at: Stamp | None = None
    pulling_s: Seconds | None = None
    decision: Address | None = None
    lost: Number = 0
    stranger: bool = False
    unresponsive: Number = 0
    attempts: list[AttemptStory] = Field(default_factory=list)
    changes: list[ChangeStory] = Field(default_factory=list)
    superseded: list[SupersededStory] = Field(default_factory=list)
    recorded: list[RecordedStory] = Field(default_factory=list)
    removed: RemovedStory | None = None


class GoalStory(TaskStory):
    """All that the mesh which is no more knew of a goal."""

    task: SubmittedGoal
    attempts: list[GoalAttemptStory] = Field(default_factory=list)  # type: ignore[assignment]
    superseded: list[GoalSupersededStory] = Field(default_factory=list)  # type: ignore[assignment]


class VoteStory(Fact):
    """A vote that was cast."""

    round: AttemptNumber
    peer: Peer
    choice: Literal["approve", "reject", "abstain"]
    reason: Why = ""
    by: Name = ""
    at_ms: Stamp


class BallotStory(Fact):
    """The newest vote on a decision, with what was cast in it and in the rounds before."""

    round: AttemptNumber
    quorum: Annotated[int, Field(ge=1, le=VOTERS_MAX)]
    voters: Annotated[list[Peer], Field(min_length=1, max_length=VOTERS_MAX)]
    opened_at: Stamp
    closes_at: Annotated[int, Field(ge=0, le=2 * TIME_MAX_MS)]
    state: Literal["open", "approved", "rejected", "undecided"]
    ended_at: Stamp | None = None
    concluded: Sha256 | None = None
    votes: list[VoteStory] = Field(default_factory=list)


class ImportPart(Fact):
    """The n-th piece, from 0 on, of the story of `of` (a task id or a decision's hash) written as JSON."""

    of: Annotated[str, Field(pattern=r"^([0-9A-Z]{26}|[0-9a-f]{64})$")]
    n: Annotated[int, Field(ge=0, lt=PARTS_MAX)]
    text: Annotated[str, Field(max_length=PART_MAX_CHARS)]


class ImportTask(Fact):
    """A task; `why` is said of an attempt that was under way. The story comes with it, or came in `parts`."""

    task_id: TaskId
    why: Why = ""
    story: dict[str, Any] | None = None
    parts: Annotated[int, Field(ge=0, le=PARTS_MAX)] = 0


class ImportGoal(ImportTask):
    """A goal, whose story has fields and results that no other task has."""


class ImportBallot(Fact):
    """A vote on the decision with this hash. The story comes with it, or came in `parts`."""

    hash: Sha256
    story: dict[str, Any] | None = None
    parts: Annotated[int, Field(ge=0, le=PARTS_MAX)] = 0


class ImportDecision(Fact):
    """A decision record that was published."""

    hash: Sha256
    address: Address = ""
    kind: Name = ""
    task_id: TaskId | None = None
    attempt: Number | None = None
    author: Peer
    at_ms: Stamp


class ImportVersion(Fact):
    """A version at a UCXL address; it had this number in the mesh `origin` and gets the next one here."""

    origin: MeshId
    address: Annotated[str, Field(max_length=2048)]
    number: AttemptNumber
    hash: MaybeSha256 = ""
    stored: MaybeSha256 = ""
    kind: Literal["content", "decision"] = "content"
    size: Number = 0
    content_type: Annotated[str, Field(max_length=256)] = ""
    author: Peer
    agent_id: Name = ""
    role: Name = ""
    deleted: bool = False
    at_ms: Stamp


class ImportMember(Fact):
    """A member of the mesh that is no more, for the names in its history."""

    peer: Peer
    agent_id: Name = ""
    role: Name = ""
    joined_at: Stamp
    # None of those that it still listed.
    removed_at: Stamp | None = None
    reason: Why = ""


FACTS: dict[str, type[Fact]] = {
    "import_part": ImportPart,
    "import_task": ImportTask,
    "import_ballot": ImportBallot,
    "import_decision": ImportDecision,
    "import_version": ImportVersion,
    "import_member": ImportMember,
    "import_goal": ImportGoal,
}

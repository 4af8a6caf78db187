"""What the table tells its readers: tasks, attempts, members, decisions. Plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from chorus.config import MeshSettings

TaskState = Literal["announced", "claimed", "running", "completed", "failed", "cancelled", "expired"]
AttemptState = Literal[
    "awarded", "declined", "claimed", "running", "completed", "failed", "cancelled", "released", "lost"
]

OPEN_STATES: frozenset[str] = frozenset({"announced", "claimed", "running"})
FINISHED_STATES: frozenset[str] = frozenset({"completed", "failed", "cancelled", "expired"})
OPEN_ATTEMPTS: frozenset[str] = frozenset({"awarded", "claimed", "running"})

# What of a task may be long, and is left out of lists.
LONG_FIELDS = (
    "description", "commands", "source", "env", "secrets", "stdin", "artifacts",
    "setup", "checks", "protected",
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `next` is the cursor of the following one, None at the end."""

    items: list[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class MeshRow:
    """The mesh itself. `leader` is the author of the newest `leader(term)` entry, a peer id.

    `version` is the table's; `recovers` are the ids of the meshes that it goes on from, the newest first.
    """

    mesh: str
    settings: MeshSettings
    leader: str | None
    leader_agent_id: str | None
    term: int
    founded_at: int
    version: int
    recovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task now. `task` is it as submitted; times are the leader's stamps, in milliseconds since 1970."""

    task_id: str
    task: dict[str, Any]
    state: TaskState
    reason: str
    attempt: int
    agent: str | None
    agent_id: str | None
    submitter: str
    submitted_by: str
    vouched_by: str
    holders: tuple[str, ...]
    created_at: int
    claimed_at: int | None
    started_at: int | None
    finished_at: int | None
    waiting_s: float | None
    pulling_s: float | None
    running_s: float | None
    result: dict[str, Any] | None
    decision: str | None
    lost: int
    # When and by whom its output and artifacts were removed by hand.
    removed_at: int | None = None
    removed_by: str | None = None
    provisional: bool = False

    @property
    def open(self) -> bool:
        """Whether the task has not ended."""
        return self.state in OPEN_STATES


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One award of a task and what became of it."""

    task_id: str
    attempt: int
    agent: str
    agent_id: str | None
    state: AttemptState
    reason: str
    awarded_at: int
    claimed_at: int | None
    started_at: int | None
    finished_at: int | None
    image: str | None
    pulling_s: float | None
    result: dict[str, Any] | None

    @property
    def open(self) -> bool:
        """Whether this attempt is still under way."""
        return self.state in OPEN_ATTEMPTS


@dataclass(frozen=True, slots=True)
class StateChange:
    """One step of a task's story."""

    attempt: int
    state: str
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class TaskStory:
    """A task, its attempts and its states, all of one moment."""

    row: TaskRow
    attempts: tuple[AttemptRow, ...]
    changes: tuple[StateChange, ...]


@dataclass(frozen=True, slots=True)
class BlobUse:
    """A blob that tasks name: whether one of them is unfinished, and when the last one finished."""

    unfinished: bool
    finished_at: int


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """When a task ended, and when what it left on the disks was removed by hand; None for what has not
    happened.
    """

    finished_at: int | None
    removed_at: int | None


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member of the mesh; `active` counts its open attempts."""

    peer: str
    raft_id: int
    agent_id: str
    role: str
    expertise: tuple[str, ...]
    specialization: str
    max_tasks: int
    languages: tuple[str, ...]
    images: tuple[str, ...]
    accepting: bool
    reason: str
    version: str
    voter: bool
    present: bool
    active: int
    joined_at: int
    # The newest version of the table that it said it knows.
    table_version: int = 1
    # The models that it reaches goals with, each `{"provider", "model", "local"}`, and why they are not more.
    models: tuple[dict[str, Any], ...] = ()
    model_reason: str = ""


@dataclass(frozen=True, slots=True)
class FormerRow:
    """A member that was removed and has not joined again. Times are milliseconds since 1970."""

    peer: str
    agent_id: str
    role: str
    raft_id: int
    joined_at: int
    removed_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A published decision record as the mesh knows it; the record itself lies in the DHT."""

    hash: str
    address: str
    kind: str
    task_id: str | None
    attempt: int | None
    author: str
    agent_id: str | None
    index: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version at a UCXL address; `latest` is the number of the address's latest one.

    `stored` names the value in the DHT, `kind` the DHT's kind; `role` is the author's when it wrote.
    """

    address: str
    version: int
    latest: int
    hash: str
    stored: str
    kind: str
    size: int
    content_type: str
    author: str
    agent_id: str
    role: str
    deleted: bool
    index: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class VoteRow:
    """A member's vote on a decision; `by` is the person who cast it through that member."""

    voter: str
    agent_id: str | None
    choice: Literal["approve", "reject", "abstain"]
    reason: str
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class BallotRow:
    """The newest vote on a decision. `record` is the hash of its outcome's record, once that is published."""

    hash: str
    round: int
    state: Literal["open", "approved", "rejected", "undecided"]
    quorum: int
    voters: int
    approve: int
    reject: int
    abstain: int
    opened_at: int
    closes_at: int
    ended_at: int | None
    record: str | None
    votes: tuple[VoteRow, ...]

"""The entries of the mesh's log: what each type says.

Who may say it is decided in `chorus.table.transitions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chorus.wire.ids import ID_PATTERN

TaskId = Annotated[str, Field(pattern=ID_PATTERN)]
Peer = Annotated[str, Field(min_length=1, max_length=128)]
Reason = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=128)]
Number = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]

# As many waiting tasks as one entry gives a reason for.
WAITING_MAX = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry as the core hands it out. `stamp_ms` is the leader's clock and never goes back."""

    index: int
    stamp_ms: int
    type: str
    id: str
    author: str
    seen: int
    body: Any


class Fact(BaseModel):
    """What an entry says. Fields that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Profile(Fact):
    """What a member can do and is ready to do."""

    agent_id: Name
    role: Name = ""
    expertise: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    specialization: Name = "general"
    max_tasks: Annotated[int, Field(ge=0, le=100_000)] = 3
    languages: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    images: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=256)] = ()
    accepting: bool = False
    reason: Reason = ""
    version: Name = ""


class Found(Fact):
    """The mesh begins: its id, its settings, and the founder, who is its author."""

    mesh: Name = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    agent: dict[str, Any] = Field(default_factory=dict)


class Leader(Fact):
    """Its author leads this term."""

    term: Number


class Join(Fact):
    """The leader admits a member, whose raft id is this entry's index."""

    peer: Peer
    agent_id: Name = ""
    raft_id: Number = 0
    licence: str = ""


class Voter(Fact):
    """The leader gives or takes a vote."""

    peer: Peer
    voter: bool


class MemberProfile(Profile):
    """A member says what it can do."""


class Presence(Fact):
    """The leader says whether a member is there."""

    peer: Peer
    present: bool
    reason: Reason = ""


class Submit(Fact):
    """A task, its submitter, and the member that vouches for it. `holders` have its blobs on disk."""

    task_id: TaskId
    task: dict[str, Any]
    submitter: Peer
    submitted_by: Name = ""
    vouched_by: Peer
    holders: Annotated[tuple[Peer, ...], Field(max_length=64)] = ()
    submitted_at: Number | None = None


class Award(Fact):
    """The leader gives the next attempt to a member."""

    task_id: TaskId
    attempt: Number
    agent: Peer


class Decline(Fact):
    """The awarded member does not take the attempt."""

    task_id: TaskId
    attempt: Number
    reason: Reason = ""


class Claim(Fact):
    """The awarded member takes the attempt."""

    task_id: TaskId
    attempt: Number


class Started(Fact):
    """The sandbox runs."""

    task_id: TaskId
    attempt: Number
    image: Annotated[str, Field(max_length=512)] = ""
    pulling_s: Seconds = 0


class Result(Fact):
    """How the attempt ended."""

    task_id: TaskId
    attempt: Number
    outcome: Literal["completed", "failed", "cancelled"]
    reason: Reason = ""
    exit_code: int | None = None
    summary: str = ""
    commands: list[dict[str, Any]] = Field(default_factory=list)
    artifacts: list[dict[str, Any]] = Field(default_factory=list)
    usage: dict[str, Any] = Field(default_factory=dict)
    ended_by: Literal["exit", "timeout", "cancel", "out_of_memory", "pids", "disk", "daemon", "lost"] = "exit"
    decision: str | None = None
    timings: dict[str, Any] = Field(default_factory=dict)
    # Addresses of the earlier decisions that the agent was given with the task.
    context: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=16)] = Field(
        default_factory=list
    )


class Release(Fact):
    """The executor gives an attempt back without a result."""

    task_id: TaskId
    attempt: Number
    reason: Reason = ""


class Reoffer(Fact):
    """The leader takes an attempt back whose lease is over."""

    task_id: TaskId
    attempt: Number
    reason: Reason = ""


class Cancel(Fact):
    """The task is to stop. `signer` is set when the cancel was heard by gossip: then the signer must be the
    submitter.
    """

    task_id: TaskId
    by: Name = ""
    signer: Annotated[str, Field(max_length=128)] = ""
    reason: Reason = ""


class Retry(Fact):
    """A task that ended without success begins anew."""

    task_id: TaskId
    by: Name = ""


class Expire(Fact):
    """The leader ends a task that did not begin in time."""

    task_id: TaskId
    reason: Reason = ""


class Wait(Fact):
    """Why one task waits."""

    task_id: TaskId
    reason: Reason


class Waiting(Fact):
    """The leader says why tasks wait, several at a time."""

    tasks: Annotated[tuple[Wait, ...], Field(max_length=WAITING_MAX)]


class DecisionPublished(Fact):
    """A decision record was published under this hash; `decides` is the decision whose vote it concludes."""

    task_id: TaskId | None = None
    attempt: Number | None = None
    kind: Name = ""
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    address: Annotated[str, Field(max_length=1024)] = ""
    agent: Annotated[str, Field(max_length=128)] = ""
    decides: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    # Of the record, in bytes; 0 when its author did not say.
    size: Number = 0


class VersionWritten(Fact):
    """Content was written at a UCXL address, or (`tombstone`) is gone from it.

    `hash` names the plain content, `stored` the value in the DHT when that is not the content alone. The
    other flags name what the writer expects there: `create` nothing live, `live` something, `expect` this
    latest version.
    """

    address: Annotated[str, Field(max_length=2048)]
    hash: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    stored: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    kind: Literal["content", "decision"] = "content"
    size: Number = 0
    content_type: Annotated[str, Field(max_length=256)] = ""
    tombstone: bool = False
    create: bool = False
    live: bool = False
    expect: Number | None = None


FACTS: dict[str, type[Fact]] = {
    "found": Found,
    "leader": Leader,
    "join": Join,
    "voter": Voter,
    "member": MemberProfile,
    "presence": Presence,
    "submit": Submit,
    "award": Award,
    "decline": Decline,
    "claim": Claim,
    "started": Started,
    "result": Result,
    "release": Release,
    "reoffer": Reoffer,
    "cancel": Cancel,
    "retry": Retry,
    "expire": Expire,
    "waiting": Waiting,
    "decision": DecisionPublished,
    "version": VersionWritten,
}

# Entries that count only from the author of the newest `leader(term)`.
LEADER_ONLY = frozenset({"join", "voter", "presence", "award", "reoffer", "expire", "waiting"})

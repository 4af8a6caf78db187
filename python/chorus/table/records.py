"""The records that the table is made of, as transitions read and write them and as the store keeps them.

Readers get the friendlier rows of `chorus.table.rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeVar


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh and its newest leader. There is one; `version` is the table's."""

    TABLE: ClassVar[str] = "mesh"
    KEY: ClassVar[tuple[str, ...]] = ("only",)

    only: str = "mesh"
    mesh: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    leader: str | None = None
    term: int = 0
    founded_at: int = 0
    version: int = 1
    # The meshes that it goes on from, the newest first: it was founded by `chorusctl members recover`.
    recovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A member, by peer id."""

    TABLE: ClassVar[str] = "members"
    KEY: ClassVar[tuple[str, ...]] = ("peer",)

    peer: str
    raft_id: int = 0
    agent_id: str = ""
    role: str = ""
    expertise: tuple[str, ...] = ()
    specialization: str = "general"
    max_tasks: int = 0
    languages: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    accepting: bool = False
    reason: str = "no profile yet"
    version: str = ""
    voter: bool = False
    present: bool = True
    joined_at: int = 0
    # The newest version of the table that it said it knows.
    table_version: int = 1
    # The models that it reaches goals with, each `{"provider", "model", "local"}`, and why they are not more.
    models: tuple[dict[str, Any], ...] = ()
    model_reason: str = ""


@dataclass(frozen=True, slots=True)
class FormerMember:
    """A member that was removed and has not joined again, by peer id: history still names it."""

    TABLE: ClassVar[str] = "former_members"
    KEY: ClassVar[tuple[str, ...]] = ("peer",)

    peer: str
    agent_id: str
    role: str
    raft_id: int
    joined_at: int
    removed_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Task:
    """What changes about a task; what was submitted lies in `Body`, so that a change rewrites little."""

    TABLE: ClassVar[str] = "tasks"
    KEY: ClassVar[tuple[str, ...]] = ("task_id",)

    task_id: str
    idx: int
    state: str
    reason: str
    attempt: int
    agent: str | None
    submitter: str
    submitted_by: str
    vouched_by: str
    holders: tuple[str, ...]
    project: str
    priority: int
    max_attempts: int
    start_by: int | None
    created_at: int
    claimed_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    pulling_s: float | None = None
    decision: str | None = None
    lost: int = 0
    changes: int = 0
    # Whether it counts into the strangers' share.
    stranger: bool = False
    # Attempts that ended because their executor did not answer any more.
    unresponsive: int = 0


@dataclass(frozen=True, slots=True)
class Body:
    """A task as submitted."""

    TABLE: ClassVar[str] = "bodies"
    KEY: ClassVar[tuple[str, ...]] = ("task_id",)

    task_id: str
    task: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One award and what became of it."""

    TABLE: ClassVar[str] = "attempts"
    KEY: ClassVar[tuple[str, ...]] = ("task_id", "attempt")

    task_id: str
    attempt: int
    agent: str
    state: str
    awarded_at: int
    reason: str = ""
    claimed_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    image: str | None = None
    pulling_s: float | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The n-th step of a task's story."""

    TABLE: ClassVar[str] = "changes"
    KEY: ClassVar[tuple[str, ...]] = ("task_id", "n")

    task_id: str
    n: int
    attempt: int
    state: str
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that would otherwise cost a count: open tasks of the mesh and of each submitter."""

    TABLE: ClassVar[str] = "counters"
    KEY: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel that came before its task."""

    TABLE: ClassVar[str] = "cancels"
    KEY: ClassVar[tuple[str, ...]] = ("task_id",)

    task_id: str
    at_ms: int
    by: str
    signer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A task whose output and artifacts were removed by hand."""

    TABLE: ClassVar[str] = "removed"
    KEY: ClassVar[tuple[str, ...]] = ("task_id",)

    task_id: str
    at_ms: int
    by: str


# The inputs of a task, where a number of an attempt stands for what that one left.
INPUTS: Final = -1


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds the inputs of a task, or what an attempt left, once more than the first are named."""

    TABLE: ClassVar[str] = "holdings"
    KEY: ClassVar[tuple[str, ...]] = ("task_id", "attempt")

    task_id: str
    attempt: int
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """An entry id that was applied, and what came of it: it counts once."""

    TABLE: ClassVar[str] = "known"
    KEY: ClassVar[tuple[str, ...]] = ("id",)

    id: str
    idx: int
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A published decision record."""

    TABLE: ClassVar[str] = "decisions"
    KEY: ClassVar[tuple[str, ...]] = ("hash",)

    hash: str
    address: str
    kind: str
    task_id: str | None
    attempt: int | None
    author: str
    idx: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """The one record of an attempt's result."""

    TABLE: ClassVar[str] = "recorded"
    KEY: ClassVar[tuple[str, ...]] = ("task_id", "attempt")

    task_id: str
    attempt: int
    hash: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """The newest vote on a decision, among `voters`, listed members when it began.

    `concluded` names the record of its outcome.
    """

    TABLE: ClassVar[str] = "ballots"
    KEY: ClassVar[tuple[str, ...]] = ("hash",)

    hash: str
    round: int
    quorum: int
    voters: tuple[str, ...]
    opened_at: int
    closes_at: int
    state: str = "open"
    approve: int = 0
    reject: int = 0
    abstain: int = 0
    ended_at: int | None = None
    concluded: str | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """A member's vote on a decision, the last one it cast in that round."""

    TABLE: ClassVar[str] = "votes"
    KEY: ClassVar[tuple[str, ...]] = ("hash", "round", "peer")

    hash: str
    round: int
    peer: str
    choice: str
    reason: str
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """A result that came too late to count, kept for whoever asks why."""

    TABLE: ClassVar[str] = "superseded"
    KEY: ClassVar[tuple[str, ...]] = ("task_id", "attempt", "author")

    task_id: str
    attempt: int
    author: str
    idx: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """A UCXL address that was written at, with its parts; `idx` is its first entry, `latest` a version."""

    TABLE: ClassVar[str] = "addresses"
    KEY: ClassVar[tuple[str, ...]] = ("address",)

    address: str
    agent: str
    role: str
    project: str
    task: str
    path: str
    idx: int
    latest: int = 0
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One version at a UCXL address. `role` is its author's; the address names the role that may read."""

    TABLE: ClassVar[str] = "versions"
    KEY: ClassVar[tuple[str, ...]] = ("address", "version")

    address: str
    version: int
    hash: str
    stored: str
    kind: str
    size: int
    content_type: str
    author: str
    agent_id: str
    role: str
    deleted: bool
    idx: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of what `author` brings along, until the rest of it comes."""

    TABLE: ClassVar[str] = "parts"
    KEY: ClassVar[tuple[str, ...]] = ("author", "of", "n")

    author: str
    of: str
    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Carried:
    """Up to which number the versions that an address had in another mesh are in this one."""

    TABLE: ClassVar[str] = "carried"
    KEY: ClassVar[tuple[str, ...]] = ("origin", "address")

    origin: str
    address: str
    number: int


Record = (
    Mesh | Member | Task | Body | Attempt | Change | Counter | Cancel | Known | Decision | Superseded
    | Address | Version | Recorded | Ballot | Vote | Removed | FormerMember
    | Part | Carried | Holding
)  # fmt: skip
RECORDS: tuple[type[Record], ...] = (
    Mesh, Member, Task, Body, Attempt, Change, Counter, Cancel, Known, Decision, Superseded, Address, Version,
    Recorded, Ballot, Vote, Removed, FormerMember, Part, Carried, Holding,
)  # fmt: skip

R = TypeVar("R", bound=Record)


def _values(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    only = attrgetter(names[0])
    return lambda record: (only(record),)


# Made once: these run for every record of every entry, where `dataclasses.replace` took a third of the time.
VALUES: dict[Any, Callable[[Any], tuple[Any, ...]]] = {
    kind: _values(tuple(item.name for item in fields(kind))) for kind in RECORDS
}
_KEYS = {kind: _values(kind.KEY) for kind in RECORDS}
_PLACES: dict[Any, dict[str, int]] = {
    kind: {item.name: place for place, item in enumerate(fields(kind))} for kind in RECORDS
}


def changed(record: R, **new: Any) -> R:
    """The record with other values in the named fields."""
    kind = type(record)
    values = list(VALUES[kind](record))
    places = _PLACES[kind]
    for name, value in new.items():
        values[places[name]] = value
    return kind(*values)


def key_of(record: Record) -> tuple[Any, ...]:
    """The record's key as a tuple."""
    return _KEYS[type(record)](record)

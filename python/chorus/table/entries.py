"""The entries of the mesh's log: what each type says, as schemas that are frozen.

An entry means the same in every release: a new field, or a new meaning of one, is a new type, which counts
from the version of the table on that it came with. Values are taken as they are, never turned into another
type; fields that a schema does not name are ignored. Who may say what is decided in
`chorus.table.transitions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, Strict

from chorus.table.submitted import MaybeSha256, Name, Sha256, SubmittedGoal, SubmittedTask, TaskId
from chorus.wire.schema import Schema

Peer = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
REASON_MAX_CHARS: Final = 2000
Reason = Annotated[str, Field(max_length=REASON_MAX_CHARS)]
Number = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
ExitCode = Annotated[int, Field(ge=-(2**31), lt=2**32)]
Image = Annotated[str, Field(max_length=512)]
Address = Annotated[str, Field(max_length=1024)]

# What a list of artifacts that travels as a blob may take.
ARTIFACTS_BLOB_MAX_BYTES: Final = 64 * 1024 * 1024
# As many waiting tasks as one entry gives a reason for.
WAITING_MAX: Final = 256
# As many meshes as a founding entry says that it goes on from, the newest first.
RECOVERS_MAX: Final = 64
# As many models as a member names, and as many files as a result says its patch leaves out.
MODELS_MAX: Final = 64
PATCH_LEFT_OUT_MAX: Final = 1000
# How refusals begin of a body that breaks its schema, for whoever proposed it.
UNFIT: Final = "the body does not fit"
# How those begin that say nothing about the entry itself: made anew later, it may count.
NOT_A_MEMBER: Final = "the author is not a member"
NOT_FOUNDED: Final = "the mesh is not founded"
MADE_TOO_LONG_AGO: Final = "made more than"
OF_A_LATER_VERSION: Final = "unknown: this version of the table"


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

    def of_mesh(self, mesh: str) -> Entry:
        """The entry as the table takes it: the id of a mesh that is founded stands in the signed envelope
        alone, which the core has checked and taken off.
        """
        if self.type != "found" or not isinstance(self.body, dict):
            return self
        return replace(self, body={**self.body, "mesh": mesh})


def may_count_later(reason: str) -> bool:
    """Whether an entry refused for this reason may count when it is made anew, under another id."""
    return reason.startswith((NOT_A_MEMBER, NOT_FOUNDED, MADE_TOO_LONG_AGO, OF_A_LATER_VERSION))


class Fact(Schema):
    """What an entry says."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Profile(Fact):
    """What a member can do and is ready to do."""

    agent_id: Name
    role: Name = ""
    expertise: Annotated[tuple[Name, ...], Strict(False), Field(max_length=256)] = ()
    specialization: Name = "general"
    max_tasks: Annotated[int, Field(ge=0, le=100_000)] = 3
    languages: Annotated[tuple[Name, ...], Strict(False), Field(max_length=256)] = ()
    images: Annotated[tuple[Image, ...], Strict(False), Field(max_length=256)] = ()
    accepting: bool = False
    reason: Reason = ""
    version: Name = ""


class Found(Fact):
    """The mesh begins: its id, its settings, and the founder, who is its author.

    `recovers` are the ids of the meshes whose tasks and records it goes on with, the newest first.
    """

    mesh: Name = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    agent: dict[str, Any] = Field(default_factory=dict)
    recovers: Annotated[tuple[Name, ...], Strict(False), Field(max_length=RECOVERS_MAX)] = ()


class Leader(Fact):
    """Its author leads this term."""

    term: Number


class Join(Fact):
    """The leader admits a member, whose raft id is this entry's index."""

    peer: Peer
    agent_id: Annotated[str, Field(max_length=128)] = ""


class Voter(Fact):
    """The leader gives or takes a vote."""

    peer: Peer
    voter: bool


class Removal(Fact):
    """The leader removes the member that joined under this raft id."""

    peer: Peer
    raft_id: Number
    reason: Reason = ""


class MemberProfile(Profile):
    """A member says what it can do, and the newest version of the table that it knows."""

    table_version: Annotated[int, Field(ge=1, le=2**31)] = 1


class Model(Fact):
    """A model by its provider's name for it; a `local` one answers at loopback or a private address."""

    provider: Name
    model: Annotated[Name, Field(min_length=1)]
    local: bool = False


class Models(Fact):
    """A member says which models it reaches goals with, and why they are not more."""

    models: Annotated[tuple[Model, ...], Strict(False), Field(max_length=MODELS_MAX)]
    reason: Reason = ""


class TableVersion(Fact):
    """The leader raises the table's version: types that came with it count from here on."""

    version: Annotated[int, Field(ge=2, le=2**31)]


class Presence(Fact):
    """The leader says whether a member is there."""

    peer: Peer
    present: bool
    reason: Reason = ""


class Submit(Fact):
    """A task, its submitter, and the member that vouches for it. `holders` have its blobs on disk."""

    task_id: TaskId
    task: SubmittedTask
    submitter: Peer
    submitted_by: Name = ""
    vouched_by: Peer
    holders: Annotated[tuple[Peer, ...], Strict(False), Field(max_length=64)] = ()
    submitted_at: Number | None = None


class SubmitGoal(Submit):
    """A task without commands, with what a goal alone may ask for."""

    task: SubmittedGoal


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
    image: Image = ""
    pulling_s: Seconds = 0


class Command(Fact):
    """One command that was run; a long one is cut, visibly."""

    command: Annotated[str, Field(max_length=32_000)]
    exit_code: ExitCode | None = None
    duration_s: Seconds = 0


class Artifact(Fact):
    """A file that was kept. Its path goes into headers and onto terminals: no control characters.

    `mode` is its permissions in octal, as in `0644`; absent in results of older releases.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
    size: Number
    sha256: Sha256
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] | None = None


class LeftOut(Fact):
    """A file, or a glob, that no artifact came of; without a path it concerns all of them."""

    path: Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""
    reason: Reason


class ArtifactsBlob(Fact):
    """The blob, in bytes, that lists so many artifacts, as they are too many for an entry."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=ARTIFACTS_BLOB_MAX_BYTES)]
    count: Number


Quantity = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
# As it was written: a whole number stays one.
Amount = Number | Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]
Quantities = Annotated[dict[Quantity, Amount], Field(max_length=64)]


SandboxEnd = Literal["exit", "timeout", "cancel", "out_of_memory", "pids", "disk", "daemon", "lost"]
LoopEnd = Literal[
    "finished", "setup", "checks", "steps", "tokens", "money", "stuck", "gave_up", "format", "model"
]


class Result(Fact):
    """How the attempt ended."""

    task_id: TaskId
    attempt: Number
    outcome: Literal["completed", "failed", "cancelled"]
    reason: Reason = ""
    exit_code: ExitCode | None = None
    summary: Annotated[str, Field(max_length=32_000)] = ""
    commands: Annotated[list[Command], Field(max_length=64)] = Field(default_factory=list)
    artifacts: Annotated[list[Artifact], Field(max_length=1000)] = Field(default_factory=list)
    left_out: Annotated[list[LeftOut], Field(max_length=100)] = Field(default_factory=list)
    # In place of the two lists before, when they are too long.
    artifacts_blob: ArtifactsBlob | None = None
    usage: Quantities = Field(default_factory=dict)
    ended_by: SandboxEnd = "exit"
    decision: Address | None = None
    timings: Quantities = Field(default_factory=dict)
    # Addresses of the earlier decisions that the agent was given with the task.
    context: Annotated[list[Address], Field(max_length=16)] = Field(default_factory=list)


class Patch(Fact):
    """What the attempt changed, in git's form, as a blob of `size` bytes; `left_out` is not in it."""

    sha256: Sha256
    size: Number
    files: Number
    left_out: Annotated[list[LeftOut], Field(max_length=PATCH_LEFT_OUT_MAX)] = Field(default_factory=list)


class GoalReport(Fact):
    """What a model did about a goal, and what it took: `usd` is money where the price is known, `model_s` the
    model's own time. `unchecked`: the goal had no checks, so that the outcome is the model's word.
    """

    provider: Name = ""
    model: Name = ""
    prompts_sha256: MaybeSha256 = ""
    steps: Number = 0
    calls: Number = 0
    tokens_in: Number = 0
    tokens_out: Number = 0
    usd: Seconds | None = None
    model_s: Seconds = 0
    unchecked: bool = False
    checks: Annotated[list[Command], Field(max_length=128)] = Field(default_factory=list)
    patch: Patch | None = None
    transcript_sha256: MaybeSha256 = ""
    # Of the record of the discussion about its plan.
    discussion: Address | None = None


class GoalResult(Result):
    """How an attempt at a goal ended."""

    # More ends than commands have.
    ended_by: SandboxEnd | LoopEnd  # type: ignore[assignment]
    goal: GoalReport


class Release(Fact):
    """The executor gives an attempt back without a result.

    The cause is `unresponsive` when the executor's process was ended because it did not answer.
    """

    task_id: TaskId
    attempt: Number
    reason: Reason = ""
    cause: Literal["", "unresponsive"] = ""


class GiveBack(Fact):
    """The executor gives an attempt at a goal back that its model never began: it counts as none."""

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
    signer: Name = ""
    reason: Reason = ""


class Retry(Fact):
    """A task that ended without success begins anew."""

    task_id: TaskId
    by: Name = ""


class Remove(Fact):
    """The output and artifacts of a task that has ended go before their time."""

    task_id: TaskId
    by: Name = ""


class Expire(Fact):
    """The leader ends a task that did not begin in time."""

    task_id: TaskId
    reason: Reason = ""


class DependencyFailed(Fact):
    """The leader ends a task that waits for one which ended without success."""

    task_id: TaskId


class Wait(Fact):
    """Why one task waits."""

    task_id: TaskId
    reason: Reason


class Waiting(Fact):
    """The leader says why tasks wait, several at a time."""

    tasks: Annotated[tuple[Wait, ...], Strict(False), Field(max_length=WAITING_MAX)]


class DecisionPublished(Fact):
    """A decision record was published under this hash; `decides` is the decision whose vote it concludes."""

    task_id: TaskId | None = None
    attempt: Number | None = None
    kind: Name = ""
    hash: Sha256
    address: Address = ""
    agent: Annotated[str, Field(max_length=128)] = ""
    decides: Sha256 | None = None
    # Of the record, in bytes; 0 when its author did not say.
    size: Number = 0


class VersionWritten(Fact):
    """Content was written at a UCXL address, or (`tombstone`) is gone from it.

    `hash` names the plain content, `stored` the value in the DHT when that is not the content alone. The
    other flags name what the writer expects there: `create` nothing live, `live` something, `expect` this
    latest version.
    """

    address: Annotated[str, Field(max_length=2048)]
    hash: MaybeSha256 = ""
    stored: MaybeSha256 = ""
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
    "removal": Removal,
    "member": MemberProfile,
    "presence": Presence,
    "table_version": TableVersion,
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
    "remove": Remove,
    "expire": Expire,
    "dependency_failed": DependencyFailed,
    "waiting": Waiting,
    "decision": DecisionPublished,
    "version": VersionWritten,
    "goal": SubmitGoal,
    "goal_result": GoalResult,
    "give_back": GiveBack,
    "models": Models,
}

# Entries that count only from the author of the newest `leader(term)`.
LEADER_ONLY = frozenset(
    {
        "join",
        "voter",
        "removal",
        "presence",
        "award",
        "reoffer",
        "expire",
        "dependency_failed",
        "waiting",
        "table_version",
    }
)

"""The form of a decision record with its bounds: what `docs/decision-record.schema.json` publishes.

Whether a record is genuine is `verify`'s business.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from chorus.wire.ids import ID_PATTERN
from chorus.wire.schema import DEFERRED, Schema

SCHEMA = "chorus/decision/v1"
Kind = Literal["task_result", "hmmm_outcome", "vote"]
KINDS: tuple[Kind, ...] = ("task_result", "hmmm_outcome", "vote")

# Redaction may lengthen what has a bound of its own where it comes from, so these are a little wider.
TITLE_MAX_CHARS = 2_000
SUMMARY_MAX_CHARS = 32_000
COMMAND_MAX_CHARS = 32_000
COMMANDS_MAX = 64
ARTIFACTS_MAX = 1_000
LINKS_MAX = 64
VOTES_MAX = 1_000
CHECKS_MAX = 128
LEFT_OUT_MAX = 1_000
USAGE_MAX = 64

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MaybeSha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$", description="hexadecimal, or empty")]
Peer = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{1,128}$", description="a libp2p peer id")]
Word = Annotated[str, Field(max_length=128)]
Reason = Annotated[str, Field(max_length=8_000)]
Address = Annotated[str, Field(pattern=r"^ucxl://", max_length=1024)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Measure = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", description="RFC 3339, UTC")]
Links = Annotated[list[Address], Field(max_length=LINKS_MAX)]


class Part(Schema):
    """A part of a record: nothing beside its fields, no value turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Agent(Part):
    """Who decided: the key that signs, and the name it goes by."""

    peer: Peer
    agent_id: Annotated[str, Field(min_length=1, max_length=128)]


class Command(Part):
    """One command that was run; a long one is cut, visibly."""

    command: Annotated[str, Field(max_length=COMMAND_MAX_CHARS)]
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**32)] | None
    duration_s: Seconds


class Artifact(Part):
    """A file that was kept."""

    path: Annotated[str, Field(min_length=1, max_length=4_096)]
    size: Count
    sha256: Sha256


class Inputs(Part):
    """What the decision rests on, by hash. Empty or null where there was none."""

    source_kind: Word
    source_sha256: MaybeSha256
    image: Annotated[str, Field(max_length=512)]
    image_digest: Annotated[str, Field(max_length=512)]
    prompts_sha256: MaybeSha256
    model: Word | None
    context: Links


class RecordLinks(Part):
    """Other records, by address."""

    influenced_by: Links
    derived_from: Links
    supersedes: Links


class TaskDecided(Part):
    """How an attempt ended."""

    outcome: Literal["completed", "failed", "cancelled"]
    reason: Reason
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**32)] | None
    ended_by: Literal[
        "exit", "timeout", "cancel", "out_of_memory", "pids", "disk", "daemon", "lost",
        # Of goals alone.
        "finished", "setup", "checks", "steps", "tokens", "money", "stuck", "gave_up", "format", "model",
    ]  # fmt: skip


class LeftOut(Part):
    """A path that is not in a patch, and why."""

    path: Annotated[str, Field(max_length=4_096)]
    reason: Reason


class Patch(Part):
    """What an attempt changed, in git's form: the artifact `patch.diff`."""

    sha256: Sha256
    size: Count
    files: Count
    left_out: Annotated[list[LeftOut], Field(max_length=LEFT_OUT_MAX)]


class Goal(Part):
    """What a model did about a task without commands; model and prompts stand in the record's inputs.

    `unchecked`: the goal had no checks, and the outcome is the model's word.
    """

    provider: Word
    steps: Count
    calls: Count
    tokens_in: Count
    tokens_out: Count
    usd: Annotated[Seconds | None, Field(description="US dollars, where the price is known")]
    model_s: Seconds
    unchecked: bool
    checks: Annotated[list[Command], Field(max_length=CHECKS_MAX)]
    patch: Patch | None
    transcript_sha256: MaybeSha256
    discussion: Annotated[Address | None, Field(description="the record of the discussion about its plan")]


class DiscussionDecided(Part):
    """What an HMMM discussion, in which agents reason together about a task, came to."""

    outcome: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]
    reason: Reason
    session_id: Word
    participants: Annotated[list[Peer], Field(max_length=VOTES_MAX)]
    transcript_sha256: MaybeSha256


class CastVote(Part):
    """One member's vote. `by` names the person who cast it through that member."""

    voter: Peer
    choice: Literal["approve", "reject", "abstain"]
    reason: Reason
    by: Word
    at: Time


class VoteDecided(Part):
    """What the members' votes on a decision came to. `voters` had a vote, `quorum` of them had to use it."""

    outcome: Literal["approved", "rejected", "undecided"]
    reason: Reason
    decision: Sha256
    round: Annotated[int, Field(ge=1, le=2**31)]
    quorum: Count
    voters: Count
    approve: Count
    reject: Count
    abstain: Count
    votes: Annotated[list[CastVote], Field(max_length=VOTES_MAX)]
    opened_at: Time


class Record(Part):
    """What every record has, whatever its kind."""

    # Not `schema`: pydantic keeps that name for itself.
    form: Literal["chorus/decision/v1"] = Field(alias="schema")
    address: Address
    mesh: Word
    project: Word
    task_id: Annotated[str, Field(pattern=ID_PATTERN)]
    attempt: Count
    title: Annotated[str, Field(max_length=TITLE_MAX_CHARS)]
    agent: Agent
    role: Word
    summary: Annotated[str, Field(max_length=SUMMARY_MAX_CHARS)]
    inputs: Inputs
    commands: Annotated[list[Command], Field(max_length=COMMANDS_MAX)]
    artifacts: Annotated[list[Artifact], Field(max_length=ARTIFACTS_MAX)]
    usage: Annotated[dict[Word, Measure], Field(max_length=USAGE_MAX)]
    links: RecordLinks
    created_at: Time
    sig: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$", description="Ed25519, base64")]


class TaskResult(Record):
    """The record of an attempt at a task."""

    kind: Literal["task_result"]
    decided: TaskDecided
    # Absent where there were commands: those records are what they were before there were goals.
    goal: Goal | None = None


class DiscussionOutcome(Record):
    """The record of a concluded discussion."""

    kind: Literal["hmmm_outcome"]
    decided: DiscussionDecided


class VoteOutcome(Record):
    """The record of a vote on a decision."""

    kind: Literal["vote"]
    decided: VoteDecided


AnyRecord = Annotated[TaskResult | DiscussionOutcome | VoteOutcome, Field(discriminator="kind")]
FORM: TypeAdapter[TaskResult | DiscussionOutcome | VoteOutcome] = TypeAdapter(AnyRecord, config=DEFERRED)


def json_schema() -> dict[str, Any]:
    """The form as JSON Schema (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": "A CHORUS decision record",
        **FORM.json_schema(by_alias=True),
    }

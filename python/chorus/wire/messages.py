"""The `data` of every message of every topic, as models. What peers add is kept out of the way, not refused.

The envelope around them (type, sender, time, signature) is checked by the core before a message gets here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chorus.wire.ids import ID_PATTERN
from chorus.wire.schema import Schema

TASKS = "chorus/tasks"
COORDINATION = "chorus/coordination/v1"
META_DISCUSSION = "hmmm/meta-discussion/v1"
ELECTION = "chorus/election/v1"
DECISIONS = "chorus/decisions"
HEALTH = "chorus/health"
_ROLE = "chorus/role/"
_EXPERTISE = "chorus/expertise/"
_REPORTS = "chorus/reports/"


def role_topic(role: str) -> str:
    """Where those of a role are spoken to."""
    return _ROLE + role


def expertise_topic(expertise: str) -> str:
    """Where those with an expertise are spoken to."""
    return _EXPERTISE + expertise


def reports_topic(agent_id: str) -> str:
    """Where those who report to an agent speak."""
    return _REPORTS + agent_id


def required_by(topic: str) -> tuple[str, str]:
    """The role and the expertise that a topic stands for; one is empty, or both."""
    role = topic.removeprefix(_ROLE) if topic.startswith(_ROLE) else ""
    expertise = topic.removeprefix(_EXPERTISE) if topic.startswith(_EXPERTISE) else ""
    return role, expertise


TaskId = Annotated[str, Field(pattern=ID_PATTERN)]
Text = Annotated[str, Field(max_length=64 * 1024)]
Name = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Path = Annotated[str, Field(min_length=1, max_length=1024)]
Intent = Literal["proposal", "question", "answer", "update", "objection", "agreement", "escalation"]

# What one message of a discussion, a question for help or an advice holds.
WORDS_MAX_BYTES = 4 * 1024
CITATIONS_MAX = 16
# As many members are asked by one question for help.
HELPERS_MAX = 3
# As many paths are named in one message.
PATHS_MAX = 256


def _short(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > WORDS_MAX_BYTES:
        raise ValueError(f"at most {WORDS_MAX_BYTES} bytes")
    return text


Words = Annotated[str, Field(min_length=1), AfterValidator(_short)]


class Data(Schema):
    """What a message says. Unknown fields are ignored; the envelope that is passed on keeps them."""

    model_config = ConfigDict(extra="ignore")


class TaskAnnouncement(Schema):
    """A task for the mesh: the fields of a task (`chorus.wire.task`), which reads it in full."""

    model_config = ConfigDict(extra="allow")

    title: str


class TaskCancel(Data):
    """Its signer no longer wants a task it announced."""

    task_id: TaskId
    reason: Name = ""


class OnAttempt(Data):
    """Something about one attempt of a task."""

    task_id: TaskId
    attempt: Count
    mesh: Name = ""


class TaskAward(OnAttempt):
    """The leader gave an attempt to a member."""

    agent: Name


class TaskClaim(OnAttempt):
    """Its signer took the attempt."""


class TaskDecline(Data):
    """Its signer did not take the attempt; or, without one, refuses an announcement.

    An announcement without a usable `task_id` is named by its message id.
    """

    task_id: Name
    attempt: Count | None = None
    mesh: Name = ""
    reason: Text = ""


class TaskProgress(OnAttempt):
    """Its signer works on the attempt."""

    state: Name = "running"
    message: Text = ""
    command: Count | None = None
    # Of a goal: files that it touched since the message before.
    paths: Annotated[tuple[Path, ...], Field(max_length=PATHS_MAX)] = ()


class TaskComplete(OnAttempt):
    """The attempt's result is committed."""

    exit_code: int | None = None
    summary: Text = ""
    decision: Name | None = None
    ended_by: Name = "exit"


class TaskFailed(TaskComplete):
    """The attempt ended without success."""

    reason: Text = ""


class AvailabilityBroadcast(Data):
    """How much more work its signer takes."""

    active: Count
    max_tasks: Count
    available: Count
    accepting: bool = True
    reason: Text = ""


class CapabilityBroadcast(Data):
    """What its signer can do."""

    agent_id: Name
    role: Name = ""
    expertise: tuple[Name, ...] = ()
    reports_to: Name = ""
    specialization: Name = ""
    max_tasks: Count = 0
    languages: tuple[Name, ...] = ()
    version: Name = ""


class CoordinationRequest(Data):
    """Its signer asks others to work on something together."""

    task_id: TaskId | None = None
    message: Text = ""


class CoordinationComplete(Data):
    """What was asked for is done."""

    task_id: TaskId | None = None
    message: Text = ""


class DependencyAlert(Data):
    """The leader says that two running goals of one project touch the same kind of thing."""

    alert_id: TaskId
    task_id: TaskId
    depends_on: Annotated[tuple[TaskId, ...], Field(min_length=1, max_length=1)]
    rule: Name
    paths: Annotated[tuple[Path, ...], Field(max_length=PATHS_MAX)] = ()
    other_paths: Annotated[tuple[Path, ...], Field(max_length=PATHS_MAX)] = ()
    reason: Text = ""


class Speaker(Data):
    """Who speaks: the signer's agent, and the person who spoke through it, if one did."""

    agent_id: Name
    role: Name = ""
    person: Annotated[str, Field(max_length=128)] = ""


class Cited(Data):
    """An address that a message rests on, and why."""

    ucxl: Annotated[str, Field(pattern=r"^ucxl://", max_length=1024)]
    reason: Annotated[str, Field(max_length=1000)] = ""


class Said(Data):
    """What a member says in HMMM, in which agents reason together about a task."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    # `from` is a word of Python's.
    speaker: Speaker = Field(alias="from")
    timestamp: Annotated[str, Field(max_length=64)]


class HmmmMessage(Said):
    """A contribution to the discussion of one attempt's plan. `parent_id` is the message that it answers."""

    session_id: TaskId
    message_id: TaskId
    parent_id: TaskId | None = None
    message: Words
    intent: Intent
    citations: Annotated[tuple[Cited, ...], Field(max_length=CITATIONS_MAX)] = ()


class TaskHelpRequest(Said):
    """Its signer works on an attempt, is stuck, and asks these members (peer ids) for advice."""

    request_id: TaskId
    task_id: TaskId
    attempt: Count
    question: Words
    helpers: Annotated[tuple[Name, ...], Field(max_length=HELPERS_MAX)] = ()


class TaskHelpResponse(Said):
    """Its signer's advice."""

    request_id: TaskId
    task_id: TaskId
    attempt: Count
    message: Words


class EscalationTrigger(Said):
    """Its signer leaves a question of a discussion to a person. `message_id` is the escalation there."""

    session_id: TaskId
    message_id: TaskId
    task_id: TaskId
    attempt: Count
    reason: Words


class ElectionData(Data):
    """Common to what agents say about the mesh's leadership."""

    mesh: Name | None = None
    term: Count = 0


class Heartbeat(ElectionData):
    """Where its signer stands."""

    state: Literal["none", "follower", "candidate", "leader", "learner"] = "none"
    leader: Name | None = None
    score: Annotated[float, Field(ge=0, le=1)] = 0
    agent_id: Name = ""


class Candidacy(ElectionData):
    """Its signer stands for election."""

    score: Annotated[float, Field(ge=0, le=1)] = 0
    trigger: Name = ""


class Vote(ElectionData):
    """Its signer voted."""

    candidate: Name


class Leader(ElectionData):
    """Its signer leads."""

    trigger: Name = ""


class Resign(ElectionData):
    """Its signer leads no longer."""

    reason: Name = ""


class MemberChange(ElectionData):
    """A member came, left, or its vote changed."""

    peer: Name
    change: Name
    voters: Count = 0
    members: Count = 0


class DecisionPublished(Data):
    """Its signer published a decision record."""

    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    address: Name = ""
    kind: Name = ""
    task_id: TaskId | None = None
    attempt: Count | None = None


class DecisionVote(Data):
    """Its signer's opinion of a decision record."""

    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    vote: Name
    reason: Text = ""


class HealthStatus(Data):
    """How its signer is."""

    status: Name
    ready: bool = False
    # The state of its licence.
    license: Name = ""
    active: Count = 0
    max_tasks: Count = 0
    version: Name = ""
    details: dict[str, Any] = Field(default_factory=dict)


MESSAGES: dict[str, dict[str, type[BaseModel]]] = {
    TASKS: {"task_announcement": TaskAnnouncement, "task_cancel": TaskCancel},
    COORDINATION: {
        "task_claim": TaskClaim,
        "task_award": TaskAward,
        "task_decline": TaskDecline,
        "task_progress": TaskProgress,
        "task_complete": TaskComplete,
        "task_failed": TaskFailed,
        "availability_broadcast": AvailabilityBroadcast,
        "capability_broadcast": CapabilityBroadcast,
        "coordination_request": CoordinationRequest,
        "coordination_complete": CoordinationComplete,
        "dependency_alert": DependencyAlert,
    },
    META_DISCUSSION: {
        "hmmm.message": HmmmMessage,
        "task_help_request": TaskHelpRequest,
        "task_help_response": TaskHelpResponse,
        "escalation_trigger": EscalationTrigger,
    },
    ELECTION: {
        "heartbeat": Heartbeat,
        "candidacy": Candidacy,
        "vote": Vote,
        "leader": Leader,
        "resign": Resign,
        "member_change": MemberChange,
    },
    DECISIONS: {"decision_published": DecisionPublished, "decision_vote": DecisionVote},
    HEALTH: {"health_status": HealthStatus},
}

"""The `data` of every message of every topic, as models. What peers add is kept out of the way, not refused.

The envelope around them (type, sender, time, signature) is checked by the core before a message gets here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chorus.wire.ids import ID_PATTERN

TASKS = "chorus/tasks"
COORDINATION = "chorus/coordination/v1"
META_DISCUSSION = "hmmm/meta-discussion/v1"
ELECTION = "chorus/election/v1"
DECISIONS = "chorus/decisions"
HEALTH = "chorus/health"

TaskId = Annotated[str, Field(pattern=ID_PATTERN)]
Text = Annotated[str, Field(max_length=64 * 1024)]
Name = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Data(BaseModel):
    """What a message says. Unknown fields are ignored; the envelope that is passed on keeps them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TaskAnnouncement(BaseModel):
    """A task for the mesh: the fields of a task (`chorus.wire.task`), which reads it in full."""

    model_config = ConfigDict(frozen=True, extra="allow")

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


class TaskDecline(OnAttempt):
    """Its signer did not take the attempt."""

    reason: Text = ""


class TaskProgress(OnAttempt):
    """Its signer works on the attempt."""

    state: Name = "running"
    message: Text = ""
    command: Count | None = None


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
    """A task waits for another one."""

    task_id: TaskId
    depends_on: tuple[TaskId, ...] = ()
    reason: Text = ""


class Discussion(Data):
    """A contribution to an HMMM discussion, in which agents reason together about a task."""

    session: Name = ""
    task_id: TaskId | None = None
    message: Text = ""


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
        "hmmm.message": Discussion,
        "task_help_request": Discussion,
        "task_help_response": Discussion,
        "escalation_trigger": Discussion,
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

"""Who gets which task: fit, order of members and order of tasks. Pure; time and figures are passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from chorus.wire.languages import BASE, LANGUAGES, canonical

# A waiting task gains one level of priority in this time: none waits for ever behind more urgent ones.
AGING_MS_PER_LEVEL = 30_000

GENERAL = "general"

# What makes one fitting member better than another.
WEIGHT_LOAD = 0.5
WEIGHT_SUCCESS = 0.25
WEIGHT_IMAGE = 0.15
WEIGHT_LATENCY = 0.1
# The round trip at which a member's nearness counts half.
LATENCY_HALF_MS = 50.0
# Why a task waits that cannot run any more, unless a member comes that still has what it needs.
LOST: Final = "its source or input is lost: no member holds it any more; submit the task again"


@dataclass(frozen=True, slots=True)
class Need:
    """What a task asks of a member; the language by its canonical name. Tasks with equal needs fit the same
    members.
    """

    required_role: str = ""
    required_expertise: tuple[str, ...] = ()
    specialization: str = ""
    language: str = ""
    # Without commands: a model has to reach it, with this name unless that is empty, and one that answers at
    # a private address if `local_model`.
    goal: bool = False
    required_model: str = ""
    local_model: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a member has; a `local` one answers at loopback or a private address."""

    name: str
    local: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for an award."""

    task_id: str
    need: Need
    priority: int
    created_ms: int
    # Tasks that have to be completed first, each with its state now ("" when nobody knows it).
    blocked: tuple[tuple[str, str], ...] = ()
    # The members that are named as holders of its source and input; None when it has none of its own.
    holders: tuple[str, ...] | None = None

    @property
    def rank(self) -> tuple[int, str]:
        """Smaller goes first. All tasks age alike, so that this never changes while the task waits."""
        return self.created_ms - self.priority * AGING_MS_PER_LEVEL, self.task_id


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member as matching sees it; languages by their canonical names. `success` is the share of its
    attempts that it did not lose.
    """

    peer: str
    agent_id: str
    role: str = ""
    expertise: frozenset[str] = frozenset()
    specialization: str = GENERAL
    max_tasks: int = 1
    active: int = 0
    languages: frozenset[str] = frozenset()
    present: bool = True
    accepting: bool = True
    reason: str = ""
    success: float = 1.0
    latency_ms: float = 0.0
    models: tuple[Model, ...] = ()
    model_reason: str = ""

    @property
    def free(self) -> int:
        """How many more tasks it takes."""
        return max(0, self.max_tasks - self.active) if self.present and self.accepting else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Awards to make now, in order, and why the other tasks wait."""

    awards: tuple[tuple[str, str], ...]
    reasons: dict[str, str]


def misfit(need: Need, member: Candidate) -> str | None:
    """Why this member can never take such a task as it is now; None when it can, load apart."""
    if need.goal and (why := _without_model(need, member)) is not None:
        return why
    if need.required_role and need.required_role != member.role:
        return f"its role is not {need.required_role}"
    missing = [item for item in need.required_expertise if item not in member.expertise]
    if missing:
        return f"it lacks the expertise {', '.join(missing)}"
    if need.specialization and member.specialization not in (need.specialization, GENERAL):
        return f"its specialization is not {need.specialization}"
    if need.language:
        # An agent whose expertise names languages is asked for those only, and everybody speaks the shell.
        spoken = {canonical(word) for word in member.expertise} & LANGUAGES
        special = member.specialization != GENERAL and need.language != BASE
        if spoken and special and need.language not in spoken:
            return f"its expertise does not cover {need.language}"
        if member.languages and need.language not in member.languages:
            return f"it has no image for {need.language}"
    return None


def _without_model(need: Need, member: Candidate) -> str | None:
    """Why a member has no model for a goal; None when it has one."""
    if not member.models:
        return f"it has no model ({member.model_reason})" if member.model_reason else "it has no model"
    named = [model for model in member.models if need.required_model in ("", model.name)]
    if not named:
        return f"it does not have the model {need.required_model}"
    if need.local_model and not any(model.local for model in named):
        return "its model is not on a private address"
    return None


def unready(member: Candidate) -> str | None:
    """Why this member takes no task at all now."""
    if not member.present:
        return "it is away"
    if not member.accepting:
        return f"it takes no tasks ({member.reason or 'no reason given'})"
    if member.active >= member.max_tasks:
        return f"it is busy ({member.active} of {member.max_tasks})"
    return None


def score(need: Need, member: Candidate) -> float:
    """How well a fitting member suits, 0 to 1."""
    load = member.active / member.max_tasks if member.max_tasks else 1.0
    image = 1.0 if not need.language or need.language in member.languages else 0.0
    near = LATENCY_HALF_MS / (LATENCY_HALF_MS + max(0.0, member.latency_ms))
    return (
        WEIGHT_LOAD * (1 - load)
        + WEIGHT_SUCCESS * member.success
        + WEIGHT_IMAGE * image
        + WEIGHT_LATENCY * near
    )


def plan(
    waiting: Iterable[Waiting],
    members: Sequence[Candidate],
    excluded: Callable[[str, str], str | None] = lambda task_id, peer: None,
    *,
    explain: bool = True,
) -> Plan:
    """Awards the tasks, in the order given (by `rank`), to the members that suit them best.

    `excluded` says why a member is not asked for a task again yet. What is awarded here counts as load at
    once. Without `explain` it stops when no member has room left, and the reasons are not complete.
    """
    load = {member.peer: member.active for member in members}
    fitting: dict[Need, list[Candidate]] = {}
    full: dict[Need, str] = {}
    awards: list[tuple[str, str]] = []
    reasons: dict[str, str] = {}
    room = sum(member.free for member in members)
    for task in waiting:
        if len(awards) >= room and not explain:
            break
        open_dependencies = [(other, state) for other, state in task.blocked if state != "completed"]
        if open_dependencies:
            other, state = open_dependencies[0]
            reasons[task.task_id] = f"waits for task {other}, which is {state or 'unknown'}"
            continue
        if task.holders is not None and (why := _unheld(task.holders, members)) is not None:
            reasons[task.task_id] = why
            continue
        if task.need not in fitting:
            fitting[task.need] = [member for member in members if misfit(task.need, member) is None]
        if task.need in full:
            reasons[task.task_id] = full[task.need]
            continue
        best: Candidate | None = None
        best_score = -1.0
        ready, refused = 0, list[str]()
        for member in fitting[task.need]:
            if not member.present or not member.accepting or load[member.peer] >= member.max_tasks:
                continue
            ready += 1
            why = excluded(task.task_id, member.peer)
            if why is not None:
                refused.append(f"{member.agent_id}: {why}")
                continue
            more = load[member.peer] - member.active
            suits = score(task.need, member) - WEIGHT_LOAD * more / member.max_tasks
            if suits > best_score or (suits == best_score and best is not None and member.peer < best.peer):
                best, best_score = member, suits
        if best is not None:
            load[best.peer] += 1
            awards.append((task.task_id, best.peer))
        elif ready:
            reasons[task.task_id] = "declined by all that fit; " + "; ".join(refused)
        else:
            full[task.need] = _why(task.need, members, fitting[task.need])
            reasons[task.task_id] = full[task.need]
    return Plan(tuple(awards), reasons)


def _unheld(holders: Sequence[str], members: Sequence[Candidate]) -> str | None:
    """Why nobody could fetch a task's source and input now; None when somebody can."""
    listed = [member for member in members if member.peer in holders]
    if not listed:
        return LOST
    if any(member.present for member in listed):
        return None
    return f"its source or input is with members that are away: {_some([m.agent_id for m in listed])}"


def _why(need: Need, members: Sequence[Candidate], fitting: Sequence[Candidate]) -> str:
    if not members:
        return "no member is known yet"
    if not fitting:
        said = [f"{member.agent_id}: {misfit(need, member)}" for member in members]
        return "no member fits; " + _some(said)
    # Not which member is how busy: that changes with every task, and the reason is written down for all.
    busy = [member for member in fitting if member.present and member.accepting]
    if busy:
        return "all members that fit are busy"
    return "no member that fits is ready; " + _some([f"{m.agent_id}: {unready(m)}" for m in fitting])


def _some(said: list[str]) -> str:
    shown = "; ".join(said[:4])
    return shown if len(said) <= 4 else f"{shown}; and {len(said) - 4} more"

"""Who takes part in a discussion, and who is asked for help: the fittest few who can answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

PARTICIPANTS_MAX: Final = 5

# Roles that judge plans come before others, where the task names none.
_JUDGING: Final = frozenset({"architect", "reviewer", "tester"})
_WEIGHT_ROLE: Final = 2.0
_WEIGHT_JUDGING: Final = 0.5
_WEIGHT_EXPERTISE: Final = 1.0
_WEIGHT_LOAD: Final = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member as it is chosen by. `answers` says that it has a model; `load` is 0 (idle) to 1 (full)."""

    peer: str
    role: str = ""
    expertise: frozenset[str] = frozenset()
    load: float = 0.0
    present: bool = True
    answers: bool = True


@dataclass(frozen=True, slots=True)
class Topic:
    """What a task says of who knows about it."""

    role: str = ""
    expertise: frozenset[str] = frozenset()


def choose(
    members: Iterable[Candidate], owner: str, topic: Topic, most: int = PARTICIPANTS_MAX
) -> tuple[str, ...]:
    """The peers of the fittest present members that can answer, the owner left out, best first."""
    able = (member for member in members if member.present and member.answers and member.peer != owner)
    best = sorted(able, key=lambda member: (-fitness(member, topic), member.peer))
    return tuple(member.peer for member in best[:most])


def fitness(member: Candidate, topic: Topic) -> float:
    """How well a member's word fits a topic; more is better."""
    role = _WEIGHT_ROLE if topic.role and member.role == topic.role else 0.0
    judging = _WEIGHT_JUDGING if member.role in _JUDGING else 0.0
    wanted = len(topic.expertise)
    known = len(member.expertise & topic.expertise) / wanted if wanted else 0.0
    return role + judging + _WEIGHT_EXPERTISE * known - _WEIGHT_LOAD * member.load

"""When two running goals of one project depend on each other: four rules over what they touched. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chorus.hmmm.ids import alert_id

# As many paths of one goal are looked at and kept.
PATHS_MAX: Final = 256
# Goals that are followed at once; the oldest is forgotten first.
GOALS_MAX: Final = 4_096
# As many alerts are remembered as raised.
RAISED_MAX: Final = 10_000

# The rules by name, in the order in which they are tried; a path falls under the first that fits.
RULES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    (
        "security",
        re.compile(
            r"(^|/)(auth|authn|authz|authentication|authorization|security|crypto|permissions?|acl|secrets?"
            r"|certs?|keys)(/|[._-])|(^|/)(\.github/codeowners|security\.md)$|\.(pem|key|crt)$"
        ),
    ),
    (
        "database_schema",
        re.compile(
            r"(^|/)(migrations?|alembic|schema|db|database)/|(^|/)(schema|models?)\.[a-z]+$|\.(sql|ddl|prisma)$"
        ),
    ),
    (
        "api_contract",
        re.compile(
            r"(^|/)(openapi|swagger)[^/]*$|\.(proto|graphql|gql|thrift|avsc|wsdl)$"
            r"|(^|/)(api|apis|routes?|endpoints?|contracts?)(/|\.[a-z]+$)"
        ),
    ),
    (
        "configuration",
        re.compile(
            r"(^|/)(config|configs|configuration|settings|conf|deploy|\.github|\.circleci)(/|\.[a-z]+$)"
            r"|(^|/)(dockerfile|makefile|docker-compose[^/]*|compose\.ya?ml|package\.json|pyproject\.toml"
            r"|cargo\.toml|go\.mod|pom\.xml|requirements[^/]*\.txt|tsconfig[^/]*\.json|\.env[^/]*)$"
            r"|\.(toml|ini|cfg|conf|properties)$"
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """Two goals touch the same kind of thing. `task_id` is the one that came to it second."""

    id: str
    rule: str
    task_id: str
    other: str
    paths: tuple[str, ...]
    other_paths: tuple[str, ...]


def rule_of(path: str) -> str | None:
    """The rule that a path falls under."""
    lower = path.lower()
    return next((name for name, pattern in RULES if pattern.search(lower)), None)


@dataclass(slots=True)
class _Goal:
    project: str
    paths: set[str] = field(default_factory=set)
    touched: dict[str, list[str]] = field(default_factory=dict)


class Dependencies:
    """What the running goals have touched; `raised` are the alerts that were raised before."""

    def __init__(self, raised: Iterable[str] = ()) -> None:
        self._goals: dict[str, _Goal] = {}
        self._raised = dict.fromkeys(raised)

    def touch(self, task_id: str, project: str, paths: Iterable[str]) -> list[Alert]:
        """A goal named paths that it touched: the alerts that follow, each pair of goals once."""
        if task_id not in self._goals and len(self._goals) >= GOALS_MAX:
            del self._goals[next(iter(self._goals))]
        goal = self._goals.setdefault(task_id, _Goal(project))
        for path in paths:
            if path in goal.paths or len(goal.paths) >= PATHS_MAX:
                continue
            goal.paths.add(path)
            if (rule := rule_of(path)) is not None:
                goal.touched.setdefault(rule, []).append(path)
        alerts = list(self._alerts(task_id, goal))
        for alert in alerts:
            self.raised(alert.id)
        return alerts

    def _alerts(self, task_id: str, goal: _Goal) -> Iterator[Alert]:
        # Without a project nothing says that two goals are about the same thing.
        if not goal.project:
            return
        for other_id, other in self._goals.items():
            if other_id == task_id or other.project != goal.project:
                continue
            ident = alert_id(task_id, other_id)
            rule = next((name for name in goal.touched if name in other.touched), None)
            if rule is not None and ident not in self._raised:
                paths, others = tuple(goal.touched[rule]), tuple(other.touched[rule])
                yield Alert(ident, rule, task_id, other_id, paths, others)

    def end(self, task_id: str) -> None:
        """A goal runs no longer."""
        self._goals.pop(task_id, None)

    def raised(self, ident: str) -> None:
        """An alert was raised, by this leader or another."""
        self._raised[ident] = None
        if len(self._raised) > RAISED_MAX:
            del self._raised[next(iter(self._raised))]

    def forget(self, ident: str) -> None:
        """An alert is to be raised by somebody else."""
        self._raised.pop(ident, None)

    def running(self) -> list[str]:
        """The goals that are followed."""
        return list(self._goals)

"""The leader's picture of the open tasks: which wait, in their order, and who works on how many."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chorus.coordinator.matching import Need, Waiting
from chorus.table.records import INPUTS, Attempt, Body, Holding, Task
from chorus.table.rows import OPEN_ATTEMPTS
from chorus.table.store import TableStore
from chorus.table.tasks import begins_until, ended_without_success
from chorus.wire.languages import canonical

Rank = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Working:
    """An open attempt."""

    task_id: str
    attempt: int
    peer: str
    state: str


class Board:
    """Kept up to date task by task as entries are applied; the table stays the truth."""

    def __init__(self, store: TableStore) -> None:
        self._store = store
        self._order: list[Rank] = []
        self._waiting: dict[str, Waiting] = {}
        self._dependents: dict[str, set[str]] = {}
        self.working: dict[str, Working] = {}
        self.load: Counter[str] = Counter()
        # Awards that were proposed and not yet applied: the task no longer waits, the member has less room.
        self.pending: dict[str, str] = {}
        # Waiting tasks that depend on one which ended without success.
        self.failed_dependency: dict[str, None] = {}
        # When waiting tasks expire, in milliseconds since 1970.
        self.until: dict[str, int] = {}

    def rebuild(self) -> None:
        """Reads all open tasks: for a new leader."""
        self._order, self._waiting, self._dependents = [], {}, {}
        self.working, self.load, self.pending, self.until = {}, Counter(), {}, {}
        self.failed_dependency = {}
        for task in self._store.open_tasks():
            self._put(task)

    def refresh(self, task_id: str) -> None:
        """Something was applied to this task."""
        task = self._store.get(Task, task_id)
        self._take(task_id)
        if task is not None and task.finished_at is None:
            self._put(task)
        if task_id not in self._waiting:
            self.award_ends(task_id)
        for dependent in list(self._dependents.get(task_id, ())):
            known = self._store.get(Task, dependent)
            self._take(dependent)
            if known is not None and known.finished_at is None:
                self._put(known)

    def award_begins(self, task_id: str, peer: str) -> None:
        """An award is being proposed."""
        self.pending[task_id] = peer
        self.load[peer] += 1

    def award_ends(self, task_id: str) -> None:
        """It was applied or given up."""
        peer = self.pending.pop(task_id, None)
        if peer is not None:
            self.load[peer] -= 1

    def waiting(self) -> Iterator[Waiting]:
        """The waiting tasks, first come first, urgent ones earlier."""
        for _, task_id in self._order:
            if task_id not in self.pending:
                yield self._waiting[task_id]

    @property
    def any_waiting(self) -> bool:
        """Whether a task waits that no award is under way for."""
        return len(self._order) > len(self.pending)

    def _put(self, task: Task) -> None:
        if task.agent is not None:
            attempt = self._store.get(Attempt, task.task_id, task.attempt)
            if attempt is not None and attempt.state in OPEN_ATTEMPTS:
                self.working[task.task_id] = Working(task.task_id, task.attempt, attempt.agent, attempt.state)
                self.load[attempt.agent] += 1
            return
        body = self._store.get(Body, task.task_id)
        if body is None:
            return
        waiting = Waiting(
            task.task_id,
            need_of(body.task),
            task.priority,
            task.created_at,
            self._blocked(task, body),
            self._holders(task, body),
        )
        self._waiting[task.task_id] = waiting
        insort(self._order, waiting.rank)
        if any(ended_without_success(self._store.get(Task, other)) for other, _ in waiting.blocked):
            self.failed_dependency[task.task_id] = None
        until = begins_until(task)
        if until is not None:
            self.until[task.task_id] = until

    def _holders(self, task: Task, body: Body) -> tuple[str, ...] | None:
        source = body.task.get("source")
        if not (isinstance(source, dict) and source.get("sha256")) and not body.task.get("stdin_sha256"):
            return None
        holding = self._store.get(Holding, task.task_id, INPUTS)
        return task.holders if holding is None else holding.peers

    def _blocked(self, task: Task, body: Body) -> tuple[tuple[str, str], ...]:
        blocked = []
        for other in body.task.get("depends_on") or ():
            dependency = self._store.get(Task, other)
            self._dependents.setdefault(other, set()).add(task.task_id)
            blocked.append((other, dependency.state if dependency is not None else ""))
        return tuple(blocked)

    def _take(self, task_id: str) -> None:
        working = self.working.pop(task_id, None)
        if working is not None:
            self.load[working.peer] -= 1
        waiting = self._waiting.pop(task_id, None)
        if waiting is not None:
            del self._order[bisect_left(self._order, waiting.rank)]
            for other, _ in waiting.blocked:
                dependents = self._dependents.get(other, set())
                dependents.discard(task_id)
                if not dependents:
                    self._dependents.pop(other, None)
        self.failed_dependency.pop(task_id, None)
        self.until.pop(task_id, None)


def need_of(task: dict[str, Any]) -> Need:
    """What a task as submitted asks of a member."""
    return Need(
        required_role=task.get("required_role") or "",
        required_expertise=tuple(task.get("required_expertise") or ()),
        specialization=task.get("specialization") or "",
        language=canonical(task.get("language") or ""),
        goal=not task.get("commands"),
        required_model=task.get("required_model") or "",
        local_model=bool(task.get("local_model")),
    )

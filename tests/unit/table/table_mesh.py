"""A small mesh's log, written entry by entry, for the tests of the table."""

from __future__ import annotations

from typing import Any

from chorus.table.effects import MemoryView, Outcome
from chorus.table.entries import Entry
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Attempt, Member, Mesh, Task
from chorus.table.transitions import apply
from chorus.wire.ids import new_id

A, B, C, STRANGER = "peer-a", "peer-b", "peer-c", "peer-x"
T1, T2, T3 = (new_id(0, bytes([n]) * 10) for n in (1, 2, 3))
# Stamps of the log: a hundred milliseconds from entry to entry.
STEP_MS = 100


class Log:
    """Applies what it is told and keeps the entries."""

    def __init__(self, *, found: bool = True, recovers: tuple[str, ...] = ()) -> None:
        self.view = MemoryView()
        self.entries: list[Entry] = []
        self.stamp = 1_000_000
        if found:
            agent = {"agent_id": "a", "max_tasks": 3}
            self.say(A, "found", mesh="m1", settings={"voters": 5}, agent=agent, recovers=list(recovers))
            self.say(A, "leader", term=1)
            self.say(A, "join", peer=B, agent_id="b")
            self.say(A, "join", peer=C, agent_id="c")

    def say(
        self, author: str, type: str, *, id: str | None = None, seen: int | None = None, **body: Any
    ) -> Outcome:
        """One entry by `author`."""
        return self.enter(author, type, body, id=id, seen=seen)

    def enter(
        self,
        author: str,
        type: str,
        body: dict[str, Any],
        *,
        id: str | None = None,
        seen: int | None = None,
    ) -> Outcome:
        """One entry by `author`, its body as it is."""
        index = len(self.entries) + 1
        self.stamp += STEP_MS
        entry = Entry(
            index, self.stamp, type, id or f"entry-{index}", author, index - 1 if seen is None else seen, body
        )
        self.entries.append(entry)
        outcome = apply(self.view, entry)
        self.view.write(outcome.effects)
        return outcome

    def raise_version(self, *members: str, to: int = TABLE_VERSION) -> None:
        """The table goes to a version that these members know (all three, unless they are named)."""
        for peer in members or (A, B, C):
            name = peer.removeprefix("peer-")
            assert self.say(peer, "member", agent_id=name, max_tasks=3, table_version=to).accepted
        mesh = self.view.get(Mesh, "mesh")
        assert mesh is not None
        for version in range(mesh.version + 1, to + 1):
            assert self.say(A, "table_version", version=version).accepted

    def remove(self, peer: str, reason: str = "away") -> Outcome:
        """The leader removes a member."""
        member = self.view.get(Member, peer)
        assert member is not None
        return self.say(A, "removal", peer=peer, raft_id=member.raft_id, reason=reason)

    def submit(
        self, task_id: str = T1, *, author: str = B, submitter: str | None = None, **task: Any
    ) -> Outcome:
        """A task, by default with one command."""
        return self._submit("submit", task_id, author, submitter, {"commands": ["true"], **task})

    def goal(
        self, task_id: str = T1, *, author: str = B, submitter: str | None = None, **task: Any
    ) -> Outcome:
        """A task without commands."""
        return self._submit("goal", task_id, author, submitter, task)

    def _submit(
        self, type: str, task_id: str, author: str, submitter: str | None, task: dict[str, Any]
    ) -> Outcome:
        return self.say(
            author,
            type,
            task_id=task_id,
            task={"title": "t", **task},
            submitter=submitter or author,
            vouched_by=author,
            submitted_by=task.get("submitted_by", ""),
        )

    def run(self, task_id: str = T1, agent: str = C, attempt: int = 1) -> None:
        """Awarded, claimed and started."""
        assert self.say(A, "award", task_id=task_id, attempt=attempt, agent=agent).accepted
        assert self.say(agent, "claim", task_id=task_id, attempt=attempt).accepted
        assert self.say(agent, "started", task_id=task_id, attempt=attempt, image="i", pulling_s=0.5).accepted

    def result(
        self, author: str = C, task_id: str = T1, attempt: int = 1, outcome: str = "completed", **more: Any
    ) -> Outcome:
        """A result."""
        return self.say(
            author, "result", task_id=task_id, attempt=attempt, outcome=outcome, exit_code=0, **more
        )

    def goal_result(
        self, author: str = C, task_id: str = T1, attempt: int = 1, outcome: str = "completed", **more: Any
    ) -> Outcome:
        """A result of a goal."""
        body = {"ended_by": "finished", "goal": {"provider": "ollama", "model": "m", "steps": 3}, **more}
        return self.say(author, "goal_result", task_id=task_id, attempt=attempt, outcome=outcome, **body)

    def task(self, task_id: str = T1) -> Task:
        """The task now."""
        task = self.view.get(Task, task_id)
        assert task is not None
        return task

    def attempt(self, number: int, task_id: str = T1) -> Attempt:
        """An attempt now."""
        attempt = self.view.get(Attempt, task_id, number)
        assert attempt is not None
        return attempt

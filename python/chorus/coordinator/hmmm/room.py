"""What the parts of HMMM share: the hub, the table, the file, who is a member, and the attempts under way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.hmmm.store import HmmmStore, SessionRow
from chorus.coordinator.notes import Notes
from chorus.coordinator.proposals import Proposals
from chorus.hmmm import participants
from chorus.hmmm.ids import session_id
from chorus.hmmm.participants import Candidate, Topic
from chorus.hmmm.session import LASTS_MAX_MS
from chorus.hmmm.words import fitted
from chorus.hub import Hub, HubError, guard
from chorus.process import Process
from chorus.table.records import Attempt, Body, Member, Task
from chorus.table.rows import OPEN_ATTEMPTS
from chorus.wire.messages import Speaker
from chorus.wire.times import rfc3339

# What tells the other processes of this agent that something was said.
TOPIC: Final = "local/hmmm"
GOAL_MAX_CHARS: Final = 8_000


@dataclass(frozen=True, slots=True)
class Goal:
    """One attempt at a goal that is under way."""

    task_id: str
    attempt: int
    owner: str
    task: dict[str, Any]

    @property
    def project(self) -> str:
        """What the goal belongs to; "" for nothing."""
        return str(self.task.get("project") or "")

    @property
    def words(self) -> str:
        """The goal in words."""
        return str(self.task.get("description") or self.task.get("title") or "")

    @property
    def local_model(self) -> bool:
        """Whether the goal may be told to no provider beyond private addresses."""
        return self.task.get("local_model") is True

    def view(self) -> dict[str, Any]:
        """What a mind is told of it."""
        names = (
            "title", "project", "language", "required_role", "required_expertise", "local_model",
        )  # fmt: skip
        known = {name: self.task[name] for name in names if self.task.get(name)}
        goal = self.words[:GOAL_MAX_CHARS]
        return {"task_id": self.task_id, "attempt": self.attempt, "goal": goal, **known}


def now_ms() -> Callable[[], int]:
    """A clock in milliseconds since 1970 that a change of the machine's clock does not move."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + offset) // 1_000_000


class Room:
    """Shared by the parts of HMMM in one coordinator."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        proposals: Proposals,
        clock: Callable[[], int],
    ) -> None:
        self.process, self.hub, self.follower, self.proposals = process, hub, follower, proposals
        self.table = follower.store
        self.now_ms = clock
        self._file: HmmmStore | None = None
        self.notes = Notes(process, hub)
        # Set when something was said or has ended: whoever waits looks again.
        self.spoken = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()
        # The attempts under way: by session, and the session of each task.
        self._attempts: dict[str, tuple[str, int]] = {}
        self._sessions: dict[str, str] = {}
        self._news: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does work that nobody waits for."""

        async def guarded() -> None:
            with guard.handling("gossip"):
                await work

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Ends what goes on, and closes the file."""
        for task in self._tasks:
            task.cancel()
        if self._file is not None:
            self._file.close()

    @property
    def file(self) -> HmmmStore:
        """The file of discussions, opened when it is first needed. Raises sqlite3.Error."""
        if self._file is None:
            self._file = HmmmStore(self.process.settings.paths.data / "hmmm.sqlite")
        return self._file

    # The mesh

    def member(self, peer: str) -> Member | None:
        """A listed member."""
        return self.table.get(Member, peer)

    def candidates(self, goal: Goal, readers: Collection[str] = ()) -> list[Candidate]:
        """The members as HMMM chooses among them about a goal. At those in `readers` a person reads along."""
        return [
            Candidate(
                peer=member.peer,
                role=member.role,
                expertise=frozenset(member.expertise),
                load=min(1.0, self.table.open_attempts_of(member.peer) / max(1, member.max_tasks)),
                present=member.present,
                answers=member.peer in readers
                or any(model["local"] or not goal.local_model for model in member.models),
            )
            for member in self.table.records(Member)
        ]

    def chosen(
        self, goal: Goal, most: int = participants.PARTICIPANTS_MAX, readers: Collection[str] = ()
    ) -> tuple[str, ...]:
        """The fittest members that can answer about a goal; its owner only for the person who reads there."""
        found = participants.choose(self.candidates(goal, readers), goal.owner, self._topic(goal), most)
        return (*found[: most - 1], goal.owner) if goal.owner in readers else found

    def without_model(self, goal: Goal, most: int) -> tuple[str, ...]:
        """The fittest present members that have no model for a goal."""
        mute = [replace(one, answers=not one.answers) for one in self.candidates(goal)]
        return participants.choose(mute, goal.owner, self._topic(goal), most)

    @staticmethod
    def _topic(goal: Goal) -> Topic:
        role, expertise = goal.task.get("required_role"), goal.task.get("required_expertise")
        return Topic(str(role or ""), frozenset(map(str, expertise or ())))

    def speaker(self) -> dict[str, Any]:
        """This agent as messages name it."""
        return {"agent_id": self.process.settings.agent_id, "role": self.process.assignments.current.role}

    def is_own(self, peer: str, said: Speaker) -> bool:
        """Whether a listed member signed it under its own name."""
        member = self.member(peer)
        return member is not None and said.agent_id == member.agent_id

    def clean(self, text: str) -> str:
        """The text without secrets, and no longer than a message."""
        return fitted(self.proposals.redaction.text(text))

    def stamp(self) -> str:
        """Now, as messages say it."""
        return rfc3339(self.now_ms())

    # Attempts under way

    def rebuild(self) -> None:
        """Reads which attempts are under way."""
        for task in self.table.open_tasks():
            self._look_at(task.task_id)

    def on_applied(self, batch: list[Applied]) -> list[str]:
        """Keeps up with the table; the sessions whose attempt has ended."""
        ended = []
        for applied in batch:
            if applied.entry.type in ("award", "claim"):
                for task_id in applied.outcome.tasks:
                    self._look_at(task_id)
            for task_id in applied.outcome.tasks:
                known = self._sessions.get(task_id)
                if known is not None and not self._is_open(*self._attempts[known]):
                    del self._sessions[task_id], self._attempts[known]
                    ended.append(known)
                    self._look_at(task_id)
        return ended

    def _look_at(self, task_id: str) -> None:
        task = self.table.get(Task, task_id)
        if task is not None and task.agent is not None and self._is_open(task_id, task.attempt):
            made = session_id(task_id, task.attempt)
            before = self._sessions.get(task_id)
            if before is not None and before != made:
                self._attempts.pop(before, None)
            self._attempts[made], self._sessions[task_id] = (task_id, task.attempt), made

    def _is_open(self, task_id: str, attempt: int) -> bool:
        found = self.table.get(Attempt, task_id, attempt)
        return found is not None and found.state in OPEN_ATTEMPTS

    def ending(self, row: SessionRow) -> str:
        """Why nothing more will be said in a session, as far as the table knows; "" while more may be."""
        found = self.table.get(Attempt, row.task_id, row.attempt)
        if found is not None:
            return "" if found.state in OPEN_ATTEMPTS else "the attempt ended first"
        # An agent that has just joined another mesh may still be about to learn of it.
        waited = self.now_ms() >= row.opened_at + LASTS_MAX_MS
        return "the mesh's table knows the attempt no longer" if waited else ""

    def goal(self, session: str) -> Goal | None:
        """The attempt under way that a session is of, if it is one at a goal."""
        known = self._attempts.get(session)
        return self.goal_of(*known) if known is not None else None

    def goal_of(self, task_id: str, attempt: int) -> Goal | None:
        """An attempt at a goal that is under way."""
        found, body = self.table.get(Attempt, task_id, attempt), self.table.get(Body, task_id)
        if found is None or body is None or body.task.get("commands") or not self._is_open(task_id, attempt):
            return None
        return Goal(task_id, attempt, found.agent, body.task)

    def ensure(self, goal: Goal, readers: Collection[str] = ()) -> SessionRow:
        """The session of a goal, made when it is new. At the peers in `readers` a person reads along."""
        settings = self.process.settings
        ident = session_id(goal.task_id, goal.attempt)
        known = self.file.session(ident)
        if known is not None:
            return known
        made = SessionRow(
            ident,
            goal.task_id,
            goal.attempt,
            goal.owner,
            str(goal.task.get("title") or ""),
            goal.words[:GOAL_MAX_CHARS],
            goal.project,
            self.chosen(goal, readers=readers),
            int(settings.hmmm_period_s * 1000),
            int(settings.hmmm_escalation_s * 1000),
            self.now_ms(),
        )
        return self.file.begin(made)

    # News

    def tell(self, session: str) -> None:
        """Something was said in a session: wakes who waits here and in the other processes."""
        self.spoken.set()
        for event in self._waiting:
            event.set()
        self._news.add(session)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while self._news:
            news, self._news = sorted(self._news), set()
            with contextlib.suppress(HubError):
                await self.hub.publish_local(TOPIC, {"sessions": news})

    async def until(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Whether something came to hold in time; looked at whenever something is said."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while not true():
                        event.clear()
                        await event.wait()
        finally:
            self._waiting.discard(event)
        return true()

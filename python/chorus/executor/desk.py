"""Where awards arrive: checks what this agent can take, declines the rest with a reason, keeps what runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from chorus.executor import images
from chorus.executor.attempt import Attempt
from chorus.executor.backend import ImageUnavailable, SandboxError
from chorus.executor.goal import models
from chorus.executor.proposals import propose
from chorus.executor.room import Room
from chorus.process import metrics
from chorus.table.rows import AttemptRow, TaskRow
from chorus.wire.task import TaskInvalid, TaskSubmission, parse_task

# The leader waits 5 s for an answer; our table may be that far behind.
AWARD_WAIT_S = 4.0
# A pull that fails, fails soon (no registry, no such image); one that goes on longer is worth claiming for.
PULL_PATIENCE_S = 3.0
DECLINE_WITHIN_S = 30.0
POLL_S = 0.02
# An award may be under way for so long, made before the leader knew of another assignment.
UNDER_WAY_S = 10.0

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the leader is told."""

    accepted: bool
    reason: str = ""


class Desk:
    """The attempts of this agent."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._considering: dict[Key, asyncio.Task[Answer]] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self.attempts: dict[Key, Attempt] = {}
        # Attempts of an earlier life of this process, on their way back to the mesh.
        self.given_back: set[Key] = set()
        self.closed_reason = ""
        # Why no sandbox can be had just now; the watch on the backend keeps it.
        self.backend_reason = ""
        self.applied = asyncio.Event()

    @property
    def active(self) -> int:
        """Attempts under way."""
        return len(self._running)

    @property
    def _full(self) -> str:
        """Why there is no room for another attempt; "" when there is.

        The leader goes by what the table says of this agent, so that a smaller number counts for what is
        awarded once the mesh knows of it. What was on its way is taken: it need not go to the next agent.
        """
        row = self._room.table.member(self._room.hub.peer_id)
        counted = [each.max_tasks for each in self._room.assignments.recent(UNDER_WAY_S)]
        most = max(*counted, 0 if row is None else row.max_tasks)
        return f"busy: {self.active} of {most} tasks" if self.active >= most else ""

    async def award(self, task_id: str, attempt: int, index: int) -> Answer:
        """Answers an award; repeats of it share one answer."""
        key = (task_id, attempt)
        task = self._considering.get(key)
        if task is None:
            task = self._considering[key] = asyncio.create_task(self._consider(key, index))
            task.add_done_callback(lambda _: self._considering.pop(key, None))
        return await asyncio.shield(task)

    def stop_all(self, why: Any, reason: str) -> None:
        """Ends every attempt."""
        for attempt in list(self.attempts.values()):
            attempt.stop(why, reason)

    def stop_unbegun(self, reason: str) -> None:
        """Gives back what waits for its sandbox or its image."""
        for attempt in list(self.attempts.values()):
            if not attempt.begun:
                attempt.stop("lost", reason)

    async def settle(self, timeout_s: float | None) -> bool:
        """Waits until nothing runs; whether that came in time."""
        while self._running:
            _, left = await asyncio.wait(set(self._running.values()), timeout=timeout_s)
            if left:
                return False
        return True

    def check(self, task_ids: set[str] | None) -> None:
        """Stops attempts that the table says have ended. None: look at all."""
        for (task_id, number), attempt in list(self.attempts.items()):
            if task_ids is not None and task_id not in task_ids:
                continue
            row = self._room.table.task(task_id)
            if row is None or (row.attempt == number and row.open and row.agent == self._room.hub.peer_id):
                continue
            if row.attempt != number:
                attempt.stop("lost", f"attempt {row.attempt} was awarded instead")
            elif row.state == "cancelled":
                attempt.stop("cancel", row.reason)
            elif row.open:
                attempt.stop("lost", row.reason or "the mesh took the attempt back")

    # ----------------------------------------------------------------------------------------------

    async def _consider(self, key: Key, index: int) -> Answer:
        if key in self._running:
            return Answer(True)
        found = await self._awarded(key, index)
        if isinstance(found, Answer):
            return found
        row, state = found
        if state.state != "awarded":
            return Answer(False, f"the attempt is {state.state}")
        try:
            task, choice = await self._check(row)
            self._start(key, row, task, choice)
        except _Decline as decline:
            body = {"task_id": key[0], "attempt": key[1], "reason": decline.reason}
            self._room.spawn(propose(self._room.hub, "decline", body, within_s=DECLINE_WITHIN_S))
            return Answer(False, decline.reason)
        return Answer(True)

    async def _awarded(self, key: Key, index: int) -> tuple[TaskRow, AttemptRow] | Answer:
        """The award as our own table shows it."""
        table, loop = self._room.table, asyncio.get_running_loop()
        ends = loop.time() + AWARD_WAIT_S
        while True:
            row = table.task(key[0])
            if row is not None and row.attempt >= key[1]:
                break
            if loop.time() >= ends:
                return Answer(False, f"the table here has not reached entry {index}")
            self.applied.clear()
            try:
                async with asyncio.timeout(POLL_S):
                    await self.applied.wait()
            except TimeoutError:
                continue
        state = next((item for item in table.attempts(key[0]) if item.attempt == key[1]), None)
        if row.attempt != key[1] or state is None or state.agent != self._room.hub.peer_id:
            return Answer(False, "the attempt is not this agent's")
        return row, state

    async def _check(self, row: TaskRow) -> tuple[TaskSubmission, images.ImageChoice]:
        settings = self._room.settings
        if reason := self.closed_reason or self.backend_reason:
            raise _Decline(reason)
        if (row.task_id, row.attempt) in self.given_back:
            raise _Decline("the executor restarted")
        if self._full:
            raise _Decline(self._full)
        try:
            task = parse_task(row.task)
        except TaskInvalid as invalid:
            raise _Decline(f"the task cannot be read: {invalid}") from None
        room = self._room
        if task.is_goal and (why := await models.why_not(room.hub, settings.ai, task, room.model_rest)):
            raise _Decline(why)
        names = list(task.source.files) if task.source else []
        words = f"{task.title}\n{task.description}"
        table = settings.sandbox.images
        try:
            choice = images.choose(task.language, names, words, table)
        except images.ImageRefused as refused:
            raise _Decline(str(refused)) from None
        if not images.allowed(choice.image, table, settings.sandbox.allow):
            raise _Decline(f"image {choice.image} is not allowed here")
        choice = await self._with_image(choice)
        # While the image was looked for, others may have come.
        if why := self.closed_reason or self._full:
            raise _Decline(why)
        return task, choice

    async def _with_image(self, choice: images.ImageChoice) -> images.ImageChoice:
        """The choice, or the first one after it whose image can be had."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + PULL_PATIENCE_S
        while True:
            try:
                await self._room.images.ensure(choice.image, max(0.0, ends - loop.time()))
                return choice
            except ImageUnavailable as error:
                following = images.instead(choice, error.reason)
                if following is None:
                    raise _Decline(error.reason) from None
                choice = following
            except SandboxError as error:
                raise _Decline(error.reason) from None

    def _start(self, key: Key, row: TaskRow, task: TaskSubmission, choice: images.ImageChoice) -> None:
        mesh = self._room.table.mesh()
        try:
            attempt = Attempt(self._room, row, task, choice, mesh.mesh if mesh else "")
        except OSError as error:
            raise _Decline(f"this agent's disk failed: {error.strerror or error}") from None
        self.attempts[key] = attempt
        self._room.journals[key] = attempt.journal
        running = self._running[key] = asyncio.create_task(attempt.run())
        metrics.TASKS_ACTIVE.set(len(self._running))
        running.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Key) -> None:
        self._running.pop(key, None)
        self.attempts.pop(key, None)
        # A journal stays open until the result's fate is known; then the publisher takes it off.
        if (journal := self._room.journals.get(key)) is not None and journal.over:
            del self._room.journals[key]
        metrics.TASKS_ACTIVE.set(len(self._running))
        self._room.sampled()


class _Decline(Exception):
    """This agent does not take the attempt."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

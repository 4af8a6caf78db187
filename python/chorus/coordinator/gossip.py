"""Tasks and cancels heard on `chorus/tasks` and on the topics of roles and expertise.

The leader proposes them at once, others when nobody has. Whoever holds the network key is heard, so that
nothing is proposed that the table would refuse, a signer uses only a share of the log, and what comes before
its task waits in bounded memory. What is refused is answered (`declines`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial

import orjson
from pydantic import ValidationError

from chorus.coordinator.declines import Declines
from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.heard import EarlyCancels, Usage
from chorus.coordinator.leading import Leading
from chorus.coordinator.proposals import Proposals
from chorus.coordinator.submission import Submission
from chorus.hub import Hub, HubError, HubInvalid, HubRefused, Message, guard
from chorus.process import Process
from chorus.table import bounds
from chorus.table.records import Member, Mesh, Task
from chorus.wire.ids import heard_task_id
from chorus.wire.messages import TASKS, TaskCancel, required_by
from chorus.wire.task import EXPERTISE_MAX, TaskInvalid, TaskSubmission, check_entry_size, parse_task

# The leader is given this long before another member proposes what both heard; each further member waits a
# little longer than the one before, so that one of them proposes it and not all.
PATIENCE_S = 5.0
STAGGER_SHARE = 0.1
PROPOSE_S = 30.0
# What is heard and waits to be proposed; more is dropped, and said: a flood must not grow memory.
HEARD_MAX = 1_000
HEARD_MAX_BYTES = 32 * 1024 * 1024
# The types of entries by which a task begins.
SUBMISSIONS = frozenset({"submit", "goal"})
# The most that a cancel holds.
CANCEL_BYTES = 1024


def for_topic(task: TaskSubmission, topic: str) -> TaskSubmission:
    """The task as it is when it was announced on this topic: for those only whom the topic is for.

    Raises TaskInvalid when it asks for another role. Pure.
    """
    role, expertise = required_by(topic)
    if role:
        if task.required_role not in ("", role):
            raise TaskInvalid([("required_role", "is another than the topic's")])
        return task.model_copy(update={"required_role": role})
    if expertise and expertise not in task.required_expertise:
        if len(task.required_expertise) >= EXPERTISE_MAX:
            raise TaskInvalid([("required_expertise", "leaves no room for the topic's")])
        return task.model_copy(update={"required_expertise": (*task.required_expertise, expertise)})
    return task


class Gossip:
    """Turns announcements into entries. News only: whoever must be sure uses the HTTP API."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        proposals: Proposals,
        leading: Leading,
        submission: Submission,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._process, self._hub, self._follower, self._store = process, hub, follower, follower.store
        self._proposals, self._leading, self._submission = proposals, leading, submission
        self._patience_s = patience_s
        self._heard: dict[str, asyncio.Task[None]] = {}
        self._heard_bytes = 0
        self._usage = Usage()
        self._early = EarlyCancels()
        self._declines = Declines(hub, process.log)
        follower.listen(self._on_applied)

    async def run(self) -> None:
        """Listens until cancelled."""
        try:
            async with self._hub.subscribe(TASKS) as messages:
                # A disk error is the process's: it starts anew and waits for the disk.
                await guard.each(messages, self.hear, "gossip", raising=(sqlite3.OperationalError,))
        finally:
            for task in self._heard.values():
                task.cancel()

    def hear(self, message: Message) -> None:
        """One message; what is not understood is left to its sender."""
        if message.gap:
            self._process.log.warning("announcements were lost", gap=message.gap)
        try:
            if message.type == "task_announcement":
                self._hear_task(message)
            elif message.type == "task_cancel":
                self._hear_cancel(message)
        except TaskInvalid as error:
            self._not_understood(message, error)
            self._decline(message, error)
        except ValidationError as error:
            self._not_understood(message, error)

    def _not_understood(self, message: Message, error: Exception) -> None:
        self._process.log.info("an announcement was not understood", sender=message.sender, error=str(error))

    def _hear_task(self, message: Message) -> None:
        task = for_topic(parse_task(message.data), message.topic)
        check_entry_size(task)
        # The signer speaks for itself.
        task_id = task.task_id or heard_task_id(message.sender, message.sequence)
        task = task.model_copy(update={"task_id": task_id, "submitted_by": ""})
        signer = message.sender

        def needed() -> bool:
            if self._store.get(Task, task_id) is not None:
                return False
            full = bounds.full(self._store, signer, stranger=self._is_stranger(signer))
            if full is not None:
                self._decline(message, f"{full}; announce it again when some of them have ended")
            return full is None

        async def propose() -> None:
            try:
                await self._submission.take(task, submitter=signer, wait_s=PROPOSE_S)
            except HubError as error:
                # Of anything else the outcome is not known yet, or another agent's.
                if isinstance(error, HubInvalid | HubRefused) or self._submission.why_not_yet(task):
                    self._decline(message, error)
                raise

        size, stranger = len(message.raw), self._is_stranger(signer)
        full = self._usage.full(signer, size, self._now(), stranger=stranger)
        if full is not None:
            self._dropped(full, sender=signer)
            self._decline(message, f"more than {full}; announce it again in a minute")
        elif self._later(
            f"task {task_id}", size, needed, propose, lambda: self._ready(task), topic=message.topic
        ):
            self._usage.charge(signer, size, self._now(), stranger=stranger)

    def _hear_cancel(self, message: Message) -> None:
        cancel = TaskCancel.model_validate(message.data)
        if self._store.get(Task, cancel.task_id) is None:
            self._early.add(cancel.task_id, message.sender, cancel.reason, self._now())
        else:
            self._cancel(cancel.task_id, message.sender, cancel.reason)

    def _cancel(self, task_id: str, signer: str, reason: str) -> None:
        body = {"task_id": task_id, "by": signer[:128], "signer": signer, "reason": reason}

        def needed() -> bool:
            task = self._store.get(Task, task_id)
            return task is not None and task.finished_at is None and task.submitter == signer

        async def propose() -> None:
            await self._proposals.propose("cancel", body, PROPOSE_S)

        # Needs no share of the log: there are no more of them than open tasks of the signer's own.
        self._later(f"cancel {task_id} {signer}", CANCEL_BYTES, needed, propose)

    def _on_applied(self, batch: list[Applied]) -> None:
        for applied in batch:
            self._charge_others(applied)
            if applied.entry.type not in SUBMISSIONS or not applied.outcome.accepted:
                continue
            for task_id in applied.outcome.tasks:
                task = self._store.get(Task, task_id)
                if task is None or task.finished_at is not None:
                    continue
                reason = self._early.take(task_id, task.submitter, self._now())
                if reason is not None:
                    self._cancel(task_id, task.submitter, reason)

    def _charge_others(self, applied: Applied) -> None:
        """What other members proposed of the same gossip counts here as well; what was refused may say
        anything, and does not.
        """
        entry = applied.entry
        if entry.type not in SUBMISSIONS or entry.author == self._hub.peer_id or not applied.outcome.accepted:
            return
        signer = str(entry.body["submitter"])
        if signer != entry.author:
            size = len(orjson.dumps(entry.body))
            self._usage.charge(signer, size, self._now(), stranger=self._is_stranger(signer))

    def _later(
        self,
        key: str,
        size: int,
        needed: Callable[[], bool],
        propose: Callable[[], Awaitable[None]],
        ready: Callable[[], bool] = lambda: True,
        *,
        topic: str = TASKS,
    ) -> bool:
        """Whether it will be proposed, now or when its time has come."""
        if key in self._heard or not needed():
            return False
        if len(self._heard) >= HEARD_MAX or self._heard_bytes + size > HEARD_MAX_BYTES:
            self._dropped(f"{HEARD_MAX} announcements or {HEARD_MAX_BYTES} bytes that wait", dropped=key)
            return False
        self._heard_bytes += size
        work = partial(self._propose, needed, propose, ready, topic)
        task = asyncio.create_task(guard.alone(work, "gossip"))
        self._heard[key] = task

        def over(_: asyncio.Task[None]) -> None:
            self._heard.pop(key, None)
            self._heard_bytes -= size

        task.add_done_callback(over)
        return True

    def _dropped(self, limit: str, **what: str) -> None:
        """Said once a minute, however much is dropped."""
        if not self._usage.told:
            self._usage.told = True
            self._process.log.warning("announcements are dropped", limit=limit, **what)

    async def _propose(
        self,
        needed: Callable[[], bool],
        propose: Callable[[], Awaitable[None]],
        ready: Callable[[], bool],
        topic: str,
    ) -> None:
        if not self._is_first(topic):
            await asyncio.sleep(self._patience_s * (1 + self._rank() * STAGGER_SHARE))
        if not ready():
            await self._wait_for(ready)
        if not needed():
            return
        try:
            await propose()
        except HubError as error:
            self._process.log.info("what was announced is not in the table", error=str(error))

    async def _wait_for(self, ready: Callable[[], bool]) -> None:
        """What a task depends on may have been announced just before it; a new mesh takes no goals yet."""
        try:
            async with asyncio.timeout(self._patience_s):
                while not ready():
                    await self._follower.reached(self._store.applied + 1)
        except TimeoutError:
            return

    def _ready(self, task: TaskSubmission) -> bool:
        """Whether the table has what the task needs to be taken."""
        known = all(self._store.get(Task, other) is not None for other in task.depends_on)
        return known and self._submission.why_not_yet(task) is None

    def _is_first(self, topic: str) -> bool:
        """Whether this agent proposes and answers at once what is announced on a topic.

        That is the leader, or the first of those on the topic where the leader is not.
        """
        role, expertise = required_by(topic)
        if self._leading.active or not (role or expertise):
            return self._leading.active
        on_it = [
            member.peer
            for member in self._store.records(Member)
            if member.present and (member.role == role if role else expertise in member.expertise)
        ]
        mesh = self._store.get(Mesh, "mesh")
        leads = mesh is not None and mesh.leader in on_it
        return not leads and min(on_it, default="") == self._hub.peer_id

    def _decline(self, message: Message, error: TaskInvalid | HubError | str) -> None:
        if self._is_first(message.topic):
            self._declines.say(message, error)

    def _rank(self) -> int:
        """How many present members would propose before this one."""
        before = [m for m in self._store.records(Member) if m.present and m.peer < self._hub.peer_id]
        return len(before)

    def _is_stranger(self, peer: str) -> bool:
        return self._store.get(Member, peer) is None

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

"""Tasks and cancels heard on `chorus/tasks`: the leader proposes them at once, others when nobody has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pydantic import ValidationError

from chorus.coordinator.follower import Follower
from chorus.coordinator.leading import Leading
from chorus.coordinator.proposals import Proposals
from chorus.coordinator.submission import Submission
from chorus.hub import Hub, HubError, Message
from chorus.process import Process
from chorus.table.records import Task
from chorus.wire.ids import heard_task_id
from chorus.wire.messages import TASKS, TaskCancel
from chorus.wire.task import TaskInvalid, check_entry_size, parse_task

# The leader is given this long before another member proposes what both heard.
PATIENCE_S = 5.0
PROPOSE_S = 30.0
# What is heard and waits to be proposed; more is dropped, and said: a flood must not grow memory.
HEARD_MAX = 1_000


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
        self._process, self._hub, self._store = process, hub, follower.store
        self._proposals, self._leading, self._submission = proposals, leading, submission
        self._patience_s = patience_s
        self._heard: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Listens until cancelled."""
        try:
            async with self._hub.subscribe(TASKS) as messages:
                async for message in messages:
                    if message.gap:
                        self._process.log.warning("announcements were lost", gap=message.gap)
                    self.hear(message)
        finally:
            for task in self._heard.values():
                task.cancel()

    def hear(self, message: Message) -> None:
        """One message; what is not understood is left to its sender."""
        try:
            if message.type == "task_announcement":
                self._hear_task(message)
            elif message.type == "task_cancel":
                self._hear_cancel(message)
        except (TaskInvalid, ValidationError) as error:
            self._process.log.info(
                "an announcement was not understood", sender=message.sender, error=str(error)
            )

    def _hear_task(self, message: Message) -> None:
        task = parse_task(message.data)
        check_entry_size(task)
        # The signer speaks for itself.
        task_id = task.task_id or heard_task_id(message.sender, message.sequence)
        task = task.model_copy(update={"task_id": task_id, "submitted_by": ""})
        if self._store.get(Task, task_id) is not None:
            return

        async def propose() -> None:
            await self._submission.take(task, submitter=message.sender, wait_s=PROPOSE_S)

        self._later(f"task {task_id}", lambda: self._store.get(Task, task_id) is None, propose)

    def _hear_cancel(self, message: Message) -> None:
        cancel = TaskCancel.model_validate(message.data)
        body = {
            "task_id": cancel.task_id,
            "by": message.sender[:128],
            "signer": message.sender,
            "reason": cancel.reason,
        }

        def needed() -> bool:
            task = self._store.get(Task, cancel.task_id)
            return task is None or (task.finished_at is None and task.submitter == message.sender)

        async def propose() -> None:
            await self._proposals.propose("cancel", body, PROPOSE_S)

        self._later(f"cancel {cancel.task_id} {message.sender}", needed, propose)

    def _later(self, key: str, needed: Any, propose: Any) -> None:
        if key in self._heard or not needed():
            return
        if len(self._heard) >= HEARD_MAX:
            self._process.log.warning("too much is heard at once; an announcement is dropped")
            return
        task = asyncio.create_task(self._propose(needed, propose))
        self._heard[key] = task
        task.add_done_callback(lambda _: self._heard.pop(key, None))

    async def _propose(self, needed: Any, propose: Any) -> None:
        if not self._leading.active:
            await asyncio.sleep(self._patience_s)
            if not needed():
                return
        try:
            work: Coroutine[Any, Any, None] = propose()
            await work
        except HubError as error:
            self._process.log.info("what was announced is not in the table", error=str(error))

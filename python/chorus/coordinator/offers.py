"""Tells an executor of its award by a direct request, until it answers, declines, or is given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chorus.hub import Hub, HubError, HubTimeout
from chorus.process.logs import Logger
from chorus.wire.messages import COORDINATION

if TYPE_CHECKING:
    from chorus.coordinator.leading import Leading

# One request: the executor answers when its own table shows the award and it has an image.
REQUEST_TIMEOUT_S = 10.0
# An executor that cannot be reached for this long is passed over. One that is silent has its lease.
GIVE_UP_S = 5.0
RETRY_S = 0.25
# An executor that declines says so by an entry; if that does not come, the leader takes the award back.
DECLINE_GRACE_S = 2.0


class Offers:
    """One offer for each award that has not been claimed."""

    def __init__(self, leading: Leading, hub: Hub, log: Logger) -> None:
        self._leading = leading
        self._hub = hub
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, task_id: str, attempt: int, peer: str, index: int) -> None:
        """Offers an attempt; an earlier offer of the task is over."""
        self.stop(task_id)
        if self._open(task_id, attempt):
            self._tasks[task_id] = asyncio.create_task(self._offer(task_id, attempt, peer, index))

    def stop(self, task_id: str) -> None:
        """The award was claimed, declined or taken back."""
        task = self._tasks.pop(task_id, None)
        if task is not None:
            task.cancel()

    def stop_all(self) -> None:
        """This agent leads no longer."""
        for task_id in list(self._tasks):
            self.stop(task_id)

    def _open(self, task_id: str, attempt: int) -> bool:
        working = self._leading.board.working.get(task_id)
        return working is not None and working.attempt == attempt and working.state == "awarded"

    async def _offer(self, task_id: str, attempt: int, peer: str, index: int) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + GIVE_UP_S
        head = {"task_id": task_id, "attempt": attempt, "index": index}
        why = ""
        while loop.time() < give_up:
            try:
                reply = await self._hub.request(peer, "executor", "award", head, timeout=REQUEST_TIMEOUT_S)
            except HubTimeout:
                give_up = loop.time() + GIVE_UP_S
                continue
            except HubError as error:
                why = f"did not answer: {error}"
                await asyncio.sleep(RETRY_S)
                continue
            if reply.head.get("accepted"):
                await self._announce(task_id, attempt, peer)
                return
            why = f"declined: {reply.head.get('reason') or 'no reason given'}"
            await asyncio.sleep(DECLINE_GRACE_S)
            break
        if self._open(task_id, attempt):
            self._leading.reoffer(task_id, attempt, why)

    async def _announce(self, task_id: str, attempt: int, peer: str) -> None:
        try:
            data = {"task_id": task_id, "attempt": attempt, "agent": peer}
            await self._hub.publish(COORDINATION, "task_award", data)
        except HubError as error:
            # News only: the award stands in the table.
            self._log.debug("award not announced", task_id=task_id, error=str(error))

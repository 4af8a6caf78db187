"""A submitter of many tasks over HTTP, which counts those that it sees completed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpcore
import orjson

from bench.agents import Agent, bearer
from chorus.wire.ids import new_id

# Connections to each agent; a submission waits on one for its commit.
CONNECTIONS: Final = 16
# The list of completed tasks is asked for this often, in pages of this size.
LOOK_EVERY_S: Final = 0.1
PAGE: Final = 200
WARM_UP_S: Final = 2.0
ALL_COMPLETED_WITHIN_S: Final = 60.0
NAME: Final = "bench"


class Submitter:
    """Submits through all agents alike and looks through the first one. An async context manager.

    `task` is what each task has besides its id, `at_once` how many are under way at any time.
    """

    def __init__(self, agents: Sequence[Agent], task: dict[str, Any], at_once: int) -> None:
        self._agents = [(str(agent["api"]), list(bearer(agent).items())) for agent in agents]
        self._task = {"title": NAME, "submitted_by": NAME, **task}
        self._at_once = at_once
        self._room = asyncio.Semaphore(at_once)
        # Every task's number; those that are not seen completed yet, the oldest first.
        self._numbers: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._completed = 0
        self._over = False

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            pools = [httpcore.AsyncConnectionPool(max_connections=CONNECTIONS) for _ in self._agents]
            self._pools = [await stack.enter_async_context(pool) for pool in pools]
            self._looks = await stack.enter_async_context(httpcore.AsyncConnectionPool(max_connections=1))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def rate(self, seconds: float) -> float:
        """Tasks that are seen completed in a second; all that were submitted are when this returns."""
        self._over = False
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look())
            for place in range(len(self._agents)):
                for _ in range(CONNECTIONS):
                    group.create_task(self._submit(place))
            await asyncio.sleep(WARM_UP_S)
            began, before = time.monotonic(), self._completed
            await asyncio.sleep(seconds)
            rate = (self._completed - before) / (time.monotonic() - began)
            self._over = True
            async with asyncio.timeout(ALL_COMPLETED_WITHIN_S):
                while self._open:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)
            looking.cancel()
        return rate

    async def _submit(self, place: int) -> None:
        while True:
            await self._room.acquire()
            if self._over:
                # For the next one that waits, so that it ends too.
                self._room.release()
                return
            task_id = new_id()
            self._numbers[task_id] = self._open[task_id] = len(self._numbers)
            body = orjson.dumps({"task_id": task_id, **self._task})
            await self._ask(self._pools[place], place, "POST", "/api/v1/tasks", body)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._open:
                await self._see(next(iter(self._open.values())))

    async def _see(self, oldest: int) -> None:
        """Goes through the completed tasks, newest first, as far back as the oldest that is open may be."""
        query, after = f"state=completed&submitted_by={NAME}&limit={PAGE}", ""
        while True:
            page = await self._ask(self._looks, 0, "GET", f"/api/v1/tasks?{query}{after}")
            listed = [str(item["task_id"]) for item in page["items"]]
            for task_id in listed:
                if self._open.pop(task_id, None) is not None:
                    self._completed += 1
                    self._room.release()
            # The mesh may have taken in those that were under way together in any order.
            newest = max((self._numbers.get(task_id, -1) for task_id in listed), default=-1)
            if page["next"] is None or newest < oldest - self._at_once:
                return
            after = f"&cursor={quote(page['next'])}"

    async def _ask(
        self, pool: httpcore.AsyncConnectionPool, place: int, method: str, path: str, body: bytes = b""
    ) -> Any:
        url, headers = self._agents[place]
        headers = [*headers, ("Content-Type", "application/json")] if body else headers
        answer = await pool.request(method, url + path, headers=headers, content=body)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status}: {answer.content.decode()[:500]}")
        return orjson.loads(answer.content)

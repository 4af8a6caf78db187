"""What the parent asks of its processes over the hub: where they can be reached, and to end their work before
a stop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from chorus.config import Settings
from chorus.hub import Hub, HubError
from chorus.process.logs import Logger

NAME = "agent"
# Reaching the hub at a stop: when the node is not there now, nobody can be asked.
CONNECT_S = 5.0
# What an answer may take beyond the deadline it was given.
ANSWER_S = 5.0
RELEASE_S = 15.0
# The node serves the hub a moment before it listens.
LISTEN_POLL_S = 0.1

Connect = Callable[[Settings], Awaitable[Hub]]

# Only running tasks are worth a long wait; a mesh without a leader must not hold up the rest.
WORD_S = 10.0
# Who is asked, in this order, for how long at most; their work then ends side by side. The coordinator takes
# no more tasks and tells the mesh, the executor finishes those it has, election hands leadership over.
DRAINED = {"coordinator": WORD_S, "executor": math.inf, "election": WORD_S}


async def connect_to_hub(settings: Settings) -> Hub:
    """The hub, if it can be reached soon."""
    return await Hub.connect(settings.paths.hub_socket, NAME, retry_for=CONNECT_S)


async def report(settings: Settings) -> dict[str, Any]:
    """The network state of the node as soon as it serves and listens."""
    async with await Hub.connect(settings.paths.hub_socket, NAME) as hub:
        while True:
            try:
                state = await hub.net_state()
            except HubError:
                state = {}
            if state.get("listen"):
                return state
            await asyncio.sleep(LISTEN_POLL_S)


class Drain:
    """The end of the agent's work, at leisure; `hurry` cuts it short."""

    def __init__(self, settings: Settings, log: Logger, connect: Connect = connect_to_hub) -> None:
        self._settings = settings
        self._log = log
        self._connect = connect
        self._hurry = asyncio.Event()
        self._timeout_s = settings.shutdown_timeout_s

    def within(self, timeout_s: float) -> None:
        """Unfinished tasks have so long at most, and no longer than at any other stop."""
        self._timeout_s = min(self._timeout_s, timeout_s)

    def hurry(self) -> None:
        """Gives unfinished tasks back to the mesh instead of finishing them."""
        self._hurry.set()

    async def run(self) -> None:
        """Returns when work has ended, the deadline has passed, or it was cut short and given back."""
        work = asyncio.create_task(self._finish())
        hurry = asyncio.create_task(self._hurry.wait())
        waits: set[asyncio.Task[Any]] = {work, hurry}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not self._hurry.is_set():
            return await work
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        self._log.warning("cut short: unfinished tasks are given back to the mesh")
        await self._ask("release", {"executor": RELEASE_S})

    async def _finish(self) -> None:
        await self._ask("drain", {name: min(most, self._timeout_s) for name, most in DRAINED.items()})

    async def _ask(self, method: str, deadlines: dict[str, float]) -> None:
        try:
            hub = await self._connect(self._settings)
        except HubError as error:
            self._log.warning(f"nobody can be asked to {method}: {error}")
            return
        async with hub, asyncio.TaskGroup() as group:
            for service, deadline_s in deadlines.items():
                group.create_task(self._call(hub, service, method, deadline_s))

    async def _call(self, hub: Hub, service: str, method: str, deadline_s: float) -> None:
        head = {"deadline_s": deadline_s}
        try:
            await hub.call_service(service, method, head, timeout=deadline_s + ANSWER_S)
        except HubError as error:
            self._log.warning(f"{service} did not confirm {method}: {error}", code=error.code)

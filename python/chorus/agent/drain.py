"""What the parent asks of its processes over the hub: where they can be reached, and to end their work before
a stop.
"""

from __future__ import annotations

import asyncio
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
NODE_WAIT_S = 1.0

# Who is asked, in this order; their work then ends side by side. The coordinator stops taking tasks, the
# executor finishes those it has, election hands leadership over.
DRAINED = ("coordinator", "executor", "election")


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
            await asyncio.sleep(NODE_WAIT_S / 10)


class Drain:
    """The end of the agent's work, at leisure; `hurry` cuts it short."""

    def __init__(self, settings: Settings, log: Logger) -> None:
        self._settings = settings
        self._log = log
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Gives unfinished tasks back to the mesh instead of finishing them."""
        self._hurry.set()

    async def run(self) -> None:
        """Returns when work has ended, the deadline has passed, or it was cut short and given back."""
        try:
            hub = await Hub.connect(self._settings.paths.hub_socket, NAME, retry_for=CONNECT_S)
        except HubError as error:
            self._log.warning(f"nobody can be asked to finish work: {error}")
            return
        async with hub:
            asked = asyncio.create_task(self._ask_all(hub, self._settings.shutdown_timeout_s))
            hurry = asyncio.create_task(self._hurry.wait())
            waits: set[asyncio.Task[Any]] = {asked, hurry}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if asked.done() and not self._hurry.is_set():
                return
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            self._log.warning("cut short: unfinished tasks are given back to the mesh")
            await self._call(hub, "executor", "release", {}, RELEASE_S)

    async def _ask_all(self, hub: Hub, deadline_s: float) -> None:
        head = {"deadline_s": deadline_s}
        async with asyncio.TaskGroup() as group:
            for name in DRAINED:
                group.create_task(self._call(hub, name, "drain", head, deadline_s + ANSWER_S))

    async def _call(
        self, hub: Hub, service: str, method: str, head: dict[str, Any], timeout_s: float
    ) -> None:
        try:
            await hub.call_service(service, method, head, timeout=timeout_s)
        except HubError as error:
            self._log.warning(f"{service} did not confirm {method}: {error}", code=error.code)

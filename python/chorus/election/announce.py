"""News of the election for watchers, on `chorus/election/v1`, and what the others say of themselves there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from chorus.hub import Hub, HubError, Message, guard
from chorus.process import Process
from chorus.wire.messages import ELECTION, Heartbeat

# A score older than so many heartbeats says nothing.
FRESH_HEARTBEATS = 3
# More signers than a mesh has members are not remembered.
SIGNERS_MAX = 1_000

Trigger = Literal["heartbeat_timeout", "discovery_failure", "split_brain", "quorum_loss", "manual", ""]


@dataclass(frozen=True, slots=True)
class _Heard:
    score: float
    mesh: str | None
    at: float


class News:
    """Publishes, and listens. A message lost is no harm: nothing is decided by it."""

    def __init__(self, process: Process, hub: Hub) -> None:
        self._process, self._hub = process, hub
        self._heard: dict[str, _Heard] = {}

    async def listen(self) -> None:
        """Takes heartbeats until cancelled."""
        async with self._hub.subscribe(ELECTION) as messages:
            await guard.each(messages, self.hear, "gossip")

    def hear(self, message: Message) -> None:
        """One message of another agent about itself."""
        if message.type != "heartbeat":
            return
        try:
            said = Heartbeat.model_validate(message.data)
        except ValidationError:
            return
        # In the order of hearing: who was not heard for the longest time makes room; members are heard often.
        self._heard.pop(message.sender, None)
        while len(self._heard) >= SIGNERS_MAX:
            del self._heard[next(iter(self._heard))]
        self._heard[message.sender] = _Heard(said.score, said.mesh, time.monotonic())

    def scores(self, mesh: str | None, heartbeat_s: float) -> dict[str, float]:
        """The fresh scores of those that say they are in this mesh, whose heartbeat is `heartbeat_s`."""
        oldest = time.monotonic() - FRESH_HEARTBEATS * heartbeat_s
        return {
            peer: heard.score
            for peer, heard in self._heard.items()
            if heard.at >= oldest and heard.mesh == mesh
        }

    async def say(self, type: str, **data: Any) -> bool:
        """Publishes a message of this agent; whether the core took it."""
        try:
            await self._hub.publish(ELECTION, type, data)
        except HubError as error:
            self._process.log.debug("news of the election not published", type=type, error=str(error))
            return False
        return True

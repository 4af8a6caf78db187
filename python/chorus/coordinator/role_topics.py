"""The topics that an agent is on because of its role, its expertise and whom it reports to.

`chorus/role/{role}`, `chorus/expertise/{each}`, `chorus/reports/{its supervisor}`, and `chorus/reports/{own
id}` while other members say that they report to it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final

from pydantic import ValidationError

from chorus.config import Assignment
from chorus.hub import Hub, Message, guard
from chorus.process import Assignments
from chorus.process.logs import Logger
from chorus.wire.messages import (
    COORDINATION,
    CapabilityBroadcast,
    expertise_topic,
    reports_topic,
    role_topic,
)

# Capabilities are broadcast every 30 s; who was not heard for so long reports to nobody any more.
REPORTER_KEPT_S: Final = 120.0
LOOK_S: Final = 30.0


def topics_of(assignment: Assignment, agent_id: str, *, supervises: bool) -> frozenset[str]:
    """The topics that belong to it. Pure."""
    topics = {expertise_topic(item) for item in assignment.expertise}
    if assignment.role:
        topics.add(role_topic(assignment.role))
    if assignment.reports_to:
        topics.add(reports_topic(assignment.reports_to))
    if supervises:
        topics.add(reports_topic(agent_id))
    return frozenset(topics)


class RoleTopics:
    """Joins and leaves them. `hear` is given what comes on a role's or an expertise's topic."""

    def __init__(
        self,
        hub: Hub,
        log: Logger,
        agent_id: str,
        assignments: Assignments,
        hear: Callable[[Message], None],
        is_member: Callable[[str], bool],
    ) -> None:
        self._hub, self._log, self._agent_id, self._assignments = hub, log, agent_id, assignments
        self._hear, self._is_member = hear, is_member
        self._reporters: dict[str, float] = {}
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    @property
    def joined(self) -> frozenset[str]:
        """The topics listened on now."""
        return frozenset(self._listening)

    async def run(self) -> None:
        """Listens until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._keep())
                group.create_task(self._follow())
        finally:
            for topic in list(self._listening):
                self._leave(topic)

    async def _watch(self) -> None:
        async with self._hub.subscribe(COORDINATION) as messages:
            await guard.each(messages, self.note, "gossip", raising=(sqlite3.OperationalError,))

    async def _follow(self) -> None:
        async for _ in self._assignments.changes():
            self._changed.set()

    def note(self, message: Message) -> None:
        """Whether a member says that it reports to this agent, or no longer does."""
        if message.type != "capability_broadcast" or not self._is_member(message.sender):
            return
        try:
            said = CapabilityBroadcast.model_validate(message.data)
        except ValidationError:
            return
        before = bool(self._reporters)
        if said.reports_to == self._agent_id:
            self._reporters[message.sender] = asyncio.get_running_loop().time()
        else:
            self._reporters.pop(message.sender, None)
        if bool(self._reporters) != before:
            self._changed.set()

    async def _keep(self) -> None:
        while True:
            self._changed.clear()
            oldest = asyncio.get_running_loop().time() - REPORTER_KEPT_S
            self._reporters = {
                peer: at for peer, at in self._reporters.items() if at > oldest and self._is_member(peer)
            }
            wanted = topics_of(self._assignments.current, self._agent_id, supervises=bool(self._reporters))
            for topic in self.joined - wanted:
                self._leave(topic)
            for topic in sorted(wanted - self.joined):
                self._log.info("joined a topic", topic=topic)
                listen = partial(self._listen, topic)
                self._listening[topic] = asyncio.create_task(guard.lasting(listen, "gossip"))
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _listen(self, topic: str) -> None:
        async with self._hub.subscribe(topic) as messages:
            await guard.each(messages, self._hear, "gossip")

    def _leave(self, topic: str) -> None:
        self._log.info("left a topic", topic=topic)
        self._listening.pop(topic).cancel()

"""What this member says about itself: the entries `member` and `models`, and its availability and
capabilities as news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.proposals import Proposals
from chorus.hub import Hub, HubError
from chorus.process import Process
from chorus.table.entries import MODELS_MAX, REASON_MAX_CHARS, Model
from chorus.table.entry_types import SINCE
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Member, Mesh
from chorus.wire.messages import COORDINATION

# The executor is asked this often while it takes no tasks (it may be about to), and this often when it does.
ASK_SOON_S = 0.5
ASK_S = 5.0
ENTRY_TIMEOUT_S = 10.0
# What changes is told, and all of it anew in between for those who came later.
BROADCAST_S = 30.0
# Many tasks may begin and end in a second; so much is told at once.
NEWS_PAUSE_S = 0.2
DRAINING = "draining: this agent is about to stop"


class ProfileKeeper:
    """Keeps the table's idea of this member true."""

    def __init__(self, process: Process, hub: Hub, follower: Follower, proposals: Proposals) -> None:
        self._process, self._hub, self._proposals = process, hub, proposals
        self._store = follower.store
        self.draining = False
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        follower.listen(self._look)

    def _look(self, batch: list[Applied]) -> None:
        if any(item.outcome.tasks or item.outcome.members for item in batch):
            self._news.set()
        # Just admitted, or somebody changed what the table says of us; or more can be said from here on.
        members = any(item.outcome.members for item in batch)
        raised = any(item.entry.type == "table_version" and item.outcome.accepted for item in batch)
        if raised or (members and not self.accepting):
            self._changed.set()

    @property
    def accepting(self) -> bool:
        """Whether the table says that this member takes tasks."""
        member = self._store.get(Member, self._hub.peer_id)
        return member is not None and member.accepting

    def refresh(self) -> None:
        """Something about this member changed."""
        self._changed.set()
        self._news.set()

    async def run(self) -> None:
        """Says what changed, until cancelled."""
        while True:
            try:
                await self.say()
            except HubError as error:
                self._process.log.info("profile not in the table yet", error=str(error))
            try:
                async with asyncio.timeout(ASK_S if self.accepting else ASK_SOON_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def say(self) -> None:
        """Proposes the profile, and the models, if the table has others."""
        member = self._store.get(Member, self._hub.peer_id)
        if member is None:
            return
        said, problem = await self._ask_executor()
        wanted = self._profile(said, problem)
        if any(_plain(getattr(member, name)) != value for name, value in wanted.items()):
            await self._proposals.propose("member", wanted, ENTRY_TIMEOUT_S)
        mesh = self._store.get(Mesh, "mesh")
        if "models" not in said or mesh is None or mesh.version < SINCE["models"]:
            return
        models = self._proposals.redaction.entry("models", models_of(said))
        if (list(member.models), member.model_reason) != (models["models"], models["reason"]):
            await self._proposals.propose("models", models, ENTRY_TIMEOUT_S)

    async def _ask_executor(self) -> tuple[dict[str, Any], str]:
        """What the executor says of this agent, or nothing and why."""
        try:
            reply = await self._hub.call_service("executor", "profile", timeout=ENTRY_TIMEOUT_S)
        except HubError as error:
            return {}, f"its executor does not answer ({error.code})"
        return reply.head, ""

    def _profile(self, said: dict[str, Any], problem: str) -> dict[str, Any]:
        settings, assignment = self._process.settings, self._process.assignments.current
        profile: dict[str, Any] = {
            "agent_id": settings.agent_id,
            "role": assignment.role,
            "expertise": list(assignment.expertise),
            "specialization": assignment.specialization,
            "max_tasks": assignment.max_tasks,
            "version": settings.version,
            "table_version": TABLE_VERSION,
            "languages": sorted(str(item) for item in said.get("languages") or ()),
            "images": sorted(str(item) for item in said.get("images") or ()),
            "accepting": bool(said.get("accepting")),
            "reason": (problem or str(said.get("reason") or ""))[:REASON_MAX_CHARS],
        }
        if self.draining:
            profile["accepting"], profile["reason"] = False, DRAINING
        return profile

    # News

    async def broadcast(self) -> None:
        """Tells what changed on `chorus/coordination/v1`, and all of it now and then, until cancelled."""
        said: dict[str, dict[str, Any]] = {}
        said_at: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            member = self._store.get(Member, self._hub.peer_id)
            for type, data in () if member is None else self._told(member):
                if data == said.get(type) and loop.time() - said_at[type] < BROADCAST_S:
                    continue
                try:
                    await self._hub.publish(COORDINATION, type, data)
                except HubError as error:
                    self._process.log.info("a broadcast is late", type=type, error=str(error))
                    continue
                said[type], said_at[type] = data, loop.time()
            try:
                async with asyncio.timeout(ASK_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            # After the change: a task that is over by then is no news, and has the processor until it is.
            await asyncio.sleep(NEWS_PAUSE_S)

    def _told(self, member: Member) -> Iterator[tuple[str, dict[str, Any]]]:
        active = self._store.open_attempts_of(member.peer)
        yield (
            "availability_broadcast",
            {
                "active": active,
                "max_tasks": member.max_tasks,
                "available": max(0, member.max_tasks - active) if member.accepting else 0,
                "accepting": member.accepting,
                "reason": member.reason,
            },
        )
        yield (
            "capability_broadcast",
            {
                "agent_id": member.agent_id,
                "role": member.role,
                "expertise": list(member.expertise),
                "reports_to": self._process.assignments.current.reports_to,
                "specialization": member.specialization,
                "max_tasks": member.max_tasks,
                "languages": list(member.languages),
                "version": member.version,
            },
        )


def models_of(said: dict[str, Any]) -> dict[str, Any]:
    """The body of a `models` entry, of what the executor passes on from `mind`.

    Models that no entry can hold are left out.
    """
    listed = said["models"] if isinstance(said["models"], list) else []
    models: list[dict[str, Any]] = []
    for item in listed:
        try:
            models.append(Model.model_validate(item).model_dump())
        except ValidationError:
            continue
    return {
        "models": models[:MODELS_MAX],
        "reason": str(said.get("model_reason") or "")[:REASON_MAX_CHARS],
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

"""What this member says about itself: the `member` entry, and its availability and capabilities as news."""

from __future__ import annotations

import asyncio
from typing import Any

from chorus.coordinator.follower import Follower
from chorus.coordinator.proposals import Proposals
from chorus.hub import Hub, HubError
from chorus.process import Process
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Member
from chorus.wire.messages import COORDINATION

# The executor is asked this often while it takes no tasks (it may be about to), and this often when it does.
ASK_SOON_S = 0.5
ASK_S = 5.0
ENTRY_TIMEOUT_S = 10.0
# Availability is told when it changes, and anew in between for those who came later.
BROADCAST_S = 30.0
DRAINING = "draining: this agent is about to stop"


class ProfileKeeper:
    """Keeps the table's idea of this member true."""

    def __init__(self, process: Process, hub: Hub, follower: Follower, proposals: Proposals) -> None:
        self._process, self._hub, self._proposals = process, hub, proposals
        self._store = follower.store
        self.draining = False
        self._changed = asyncio.Event()
        self._said: dict[str, Any] | None = None
        self._said_at = 0.0
        follower.listen(lambda batch: self._look(any(item.outcome.members for item in batch)))

    def _look(self, members: bool) -> None:
        # Just admitted, or somebody changed what the table says of us.
        if members and not self.accepting:
            self._changed.set()

    @property
    def accepting(self) -> bool:
        """Whether the table says that this member takes tasks."""
        member = self._store.get(Member, self._hub.peer_id)
        return member is not None and member.accepting

    def refresh(self) -> None:
        """Something about this member changed."""
        self._changed.set()

    async def run(self) -> None:
        """Says what changed, until cancelled."""
        while True:
            try:
                await self.say()
                await self._broadcast()
            except HubError as error:
                self._process.log.info("profile not in the table yet", error=str(error))
            try:
                async with asyncio.timeout(ASK_S if self.accepting else ASK_SOON_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def say(self) -> None:
        """Proposes the profile if the table has another."""
        member = self._store.get(Member, self._hub.peer_id)
        if member is None:
            return
        wanted = await self.wanted()
        if any(_plain(getattr(member, name)) != value for name, value in wanted.items()):
            await self._proposals.propose("member", wanted, ENTRY_TIMEOUT_S)

    async def wanted(self) -> dict[str, Any]:
        """The profile as it is now."""
        settings = self._process.settings
        profile: dict[str, Any] = {
            "agent_id": settings.agent_id,
            "role": settings.role,
            "expertise": list(settings.expertise),
            "specialization": settings.specialization,
            "max_tasks": settings.max_tasks,
            "version": settings.version,
            "table_version": TABLE_VERSION,
            "languages": [],
            "images": [],
            "accepting": False,
            "reason": "",
        }
        try:
            said = (await self._hub.call_service("executor", "profile", timeout=ENTRY_TIMEOUT_S)).head
        except HubError as error:
            profile["reason"] = f"its executor does not answer ({error.code})"
        else:
            profile["languages"] = sorted(str(item) for item in said.get("languages") or ())
            profile["images"] = sorted(str(item) for item in said.get("images") or ())
            profile["accepting"] = bool(said.get("accepting"))
            profile["reason"] = str(said.get("reason") or "")[:2000]
        if self.draining:
            profile["accepting"], profile["reason"] = False, DRAINING
        return profile

    async def _broadcast(self) -> None:
        member = self._store.get(Member, self._hub.peer_id)
        if member is None:
            return
        active = self._store.open_attempts_of(member.peer)
        available = max(0, member.max_tasks - active) if member.accepting else 0
        said = {
            "active": active,
            "max_tasks": member.max_tasks,
            "available": available,
            "accepting": member.accepting,
            "reason": member.reason,
        }
        now = asyncio.get_running_loop().time()
        if said == self._said and now - self._said_at < BROADCAST_S:
            return
        first = self._said is None
        self._said, self._said_at = said, now
        await self._hub.publish(COORDINATION, "availability_broadcast", said)
        if first:
            await self._hub.publish(
                COORDINATION,
                "capability_broadcast",
                {
                    "agent_id": member.agent_id,
                    "role": member.role,
                    "expertise": list(member.expertise),
                    "specialization": member.specialization,
                    "max_tasks": member.max_tasks,
                    "languages": list(member.languages),
                    "version": member.version,
                },
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

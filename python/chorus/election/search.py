"""An agent without a mesh: asks every peer it meets, then joins or founds by the rule of `founding`."""

from __future__ import annotations

import asyncio
import base64
import time
from functools import partial
from typing import Any

from chorus.election.founding import Found, Join, Met, Step, Wait, next_step
from chorus.hub import Hub, HubError, HubRefused, guard
from chorus.process import Process

ASK_EVERY_S = 0.2
ASK_TIMEOUT_S = 2.0
JOIN_TIMEOUT_S = 20.0
JOIN_RETRY_S = 1.0
# From whom to the leader: a peer may know an earlier one.
REDIRECTS_MAX = 4
PEER_SERVICE = "mesh"


class Search:
    """Runs until this agent is in a mesh.

    `why` says what it waits for, `founded` whether it founded its own.
    """

    def __init__(self, process: Process, hub: Hub) -> None:
        self._process, self._hub = process, hub
        self.why = "looking for a mesh"
        self.founded = False
        self.founding = False
        self.since_ms = time.time_ns() // 1_000_000
        self._met: dict[str, Met] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Returns when this agent is in a mesh."""
        started = time.monotonic()
        try:
            while (await self._hub.raft_status()).mesh is None:
                await self._look()
                step = next_step(
                    self._hub.peer_id,
                    time.monotonic(),
                    started,
                    self._process.settings.join_wait_s,
                    self._met.values(),
                )
                await self._take(step)
        finally:
            for task in self._asking.values():
                task.cancel()

    def look_again(self) -> None:
        """A peer came or went."""
        self._news.set()

    async def _take(self, step: Step) -> None:
        match step:
            case Join(peer, mesh):
                self.why = f"joining mesh {mesh} through {peer}"
                try:
                    await self._join(peer)
                    return
                except HubError as error:
                    self.why = f"mesh {mesh} has not taken this agent in: {error.message}"
                    self._process.log.warning("not in the mesh yet", mesh=mesh, reason=error.message)
                await asyncio.sleep(JOIN_RETRY_S)
            case Found():
                await self._found()
            case Wait(why):
                self.why = why
                try:
                    async with asyncio.timeout(ASK_EVERY_S):
                        await self._news.wait()
                except TimeoutError:
                    pass
                self._news.clear()

    async def _look(self) -> None:
        state = await self._hub.net_state()
        now = time.monotonic()
        connected = {str(peer["peer"]) for peer in state["peers"]}
        for gone in set(self._met) - connected:
            del self._met[gone]
        for peer in connected:
            if peer not in self._met:
                self._met[peer] = Met(peer, now)
                self._news.set()
            if peer not in self._asking:
                # Each for itself: one that does not answer must not make the others' answers old.
                task = asyncio.create_task(guard.alone(partial(self._ask, peer), "answer"))
                self._asking[peer] = task
                task.add_done_callback(lambda _, peer=peer: self._asking.pop(peer, None))  # type: ignore[misc]

    async def _ask(self, peer: str) -> None:
        asked = time.monotonic()
        try:
            said = (await self._hub.request(peer, PEER_SERVICE, "info", timeout=ASK_TIMEOUT_S)).head
        except HubError:
            return
        known = self._met.get(peer)
        if known is not None:
            mesh = said.get("mesh")
            self._met[peer] = Met(peer, known.since, asked, str(mesh) if mesh else None)
            if mesh:
                self._news.set()

    async def _join(self, peer: str) -> None:
        settings = self._process.settings
        head = {
            "agent_id": settings.agent_id,
            "licence": settings.license_id,
            "profile": profile(self._process),
        }
        for _ in range(REDIRECTS_MAX):
            said = (await self._hub.request(peer, PEER_SERVICE, "join", head, timeout=JOIN_TIMEOUT_S)).head
            if "raft_id" in said:
                await self._adopt(said)
                return
            leader = said.get("leader")
            if not leader:
                raise HubRefused("it has no leader now")
            peer = str(leader)
            await self._reach(peer, [str(address) for address in said.get("addrs") or ()])
        raise HubRefused("its members do not agree on who leads")

    async def _adopt(self, said: dict[str, Any]) -> None:
        members = [(int(raft_id), str(peer)) for raft_id, peer in said.get("members") or ()]
        base64.b64decode(str(said["founding"]), validate=True)
        await self._hub.raft_adopt(str(said["mesh"]), int(said["raft_id"]), str(said["founding"]), members)
        self._process.log.info("joined the mesh", mesh=said["mesh"], raft_id=said["raft_id"])

    async def _reach(self, peer: str, addresses: list[str]) -> None:
        state = await self._hub.net_state()
        if any(item["peer"] == peer for item in state["peers"]):
            return
        for address in addresses:
            try:
                await self._hub.dial(address)
                return
            except HubError as error:
                self._process.log.info("the leader was not reached", address=address, error=str(error))

    async def _found(self) -> None:
        settings = self._process.settings
        # Whoever asks meanwhile is not told "none": it might found as well.
        self.founding = True
        try:
            mesh = await self._hub.raft_found(mesh_settings(self._process), profile(self._process))
        except HubError as error:
            self.why = f"no mesh could be founded: {error.message}"
            self._process.log.error("no mesh could be founded", reason=error.message)
            await asyncio.sleep(JOIN_RETRY_S)
            return
        finally:
            self.founding = False
        self.founded = True
        self._process.log.info("founded a mesh", mesh=mesh, waited_s=settings.join_wait_s)


def profile(process: Process) -> dict[str, Any]:
    """What the mesh is told of this agent before its coordinator speaks for it."""
    settings = process.settings
    return {
        "agent_id": settings.agent_id,
        "role": settings.role,
        "expertise": list(settings.expertise),
        "specialization": settings.specialization,
        "max_tasks": settings.max_tasks,
        "version": settings.version,
        "accepting": False,
        "reason": "just joined",
    }


def mesh_settings(process: Process) -> dict[str, Any]:
    """The settings that a mesh founded here has for all its members."""
    settings = process.settings
    return {
        "voters": settings.voters,
        "heartbeat_ms": int(settings.heartbeat_s * 1000),
        "election_timeout_ms": int(settings.election_timeout_s * 1000),
        "lease_ms": int(settings.task_lease_s * 1000),
        "absence_ms": int(settings.member_absence_s * 1000),
        "leaderless": settings.leaderless,
    }

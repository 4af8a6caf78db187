"""An agent without a mesh: asks every peer it meets, then joins or founds by the rule of `founding`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import ConfigDict, Field, ValidationError

from chorus.config import MeshSettings
from chorus.election.founding import Found, Join, Met, Step, Wait, next_step
from chorus.election.peers import (
    PEER_SERVICE,
    RECOVERS_MAX,
    MeshId,
    PeerId,
    Peers,
    RaftId,
    Said,
    read,
)
from chorus.election.proof import Handshake, same
from chorus.election.seats import Seats
from chorus.hub import Hub, HubError, HubRefused, HubTampered, guard
from chorus.process import Process
from chorus.table.members import TABLE_VERSION
from chorus.wire.schema import Schema

ASK_EVERY_S = 0.2
JOIN_TIMEOUT_S = 20.0
JOIN_RETRY_S = 1.0
# Nobody else has the same.
REQUEST_BYTES = 16
# From whom to the leader: a peer may know an earlier one.
REDIRECTS_MAX = 4
# More than a mesh ever listed; each takes two short values.
MEMBERS_MAX = 10_000

# Settings and ids of meshes: far less than this.
INSTRUCTION_MAX_BYTES = 64 * 1024


class Instruction(Schema):
    """`founding.json`: this agent founds a mesh at once, which goes on from these, with these settings."""

    model_config = ConfigDict(strict=True, extra="ignore")

    recovers: list[MeshId]
    settings: dict[str, Any]


class Joined(Said):
    """The leader's answer to `mesh.join`: what to adopt, and the proof that covers it."""

    mesh: MeshId
    raft_id: RaftId
    founding: Annotated[str, Field(max_length=1024 * 1024)]
    members: Annotated[
        list[Annotated[tuple[RaftId, PeerId], Field(strict=False)]], Field(max_length=MEMBERS_MAX)
    ]
    proof: Annotated[str, Field(max_length=64)]


class LostVotes(Said):
    """The leader's other answer to `mesh.join`: this identity is a member already and has no votes."""

    mesh: MeshId
    proof: Annotated[str, Field(max_length=64)]


class Search:
    """Runs until this agent is in a mesh.

    `why` says what it waits for, `founded` whether it founded its own.
    """

    def __init__(self, process: Process, hub: Hub, peers: Peers, seats: Seats) -> None:
        self._process, self._hub, self._peers, self._seats = process, hub, peers, seats
        self.why = "looking for a mesh"
        self.founded = False
        self.founding = False
        # A leader tells by it a wish that is repeated from one of an agent that has lost its votes.
        self._request = os.urandom(REQUEST_BYTES).hex()
        self._met: dict[str, Met] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Returns when this agent is in a mesh."""
        started = time.monotonic()
        try:
            while (status := await self._hub.raft_status()).mesh is None:
                if status.lost:
                    await self._ask_for_new_identity(status.lost)
                if status.removed:
                    self.why = f"this agent was removed from its mesh and begins anew: {status.removed}"
                    await asyncio.sleep(ASK_EVERY_S)
                    continue
                if (path := self._process.settings.paths.founding_instruction).exists():
                    await self._found_as_told(path)
                    continue
                await self._look()
                step = next_step(
                    self._hub.peer_id,
                    time.monotonic(),
                    started,
                    self._process.settings.join_wait_s,
                    # A stranger's word neither lets this agent join nor keeps it from founding.
                    [met for met in self._met.values() if not self._peers.is_stranger(met.peer)],
                    self._process.settings.left_mesh,
                )
                await self._take(step)
            # Founded as told, and ended before the instruction was removed.
            self._process.settings.paths.founding_instruction.unlink(missing_ok=True)
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
        self._peers.forget_all_but(connected)
        for gone in set(self._met) - connected:
            del self._met[gone]
        for peer in connected:
            if peer not in self._met:
                self._met[peer] = Met(peer, now)
                self._news.set()
            if peer not in self._asking and not self._peers.is_stranger(peer):
                # Each for itself: one that does not answer must not make the others' answers old.
                task = asyncio.create_task(guard.alone(partial(self._ask, peer), "answer"))
                self._asking[peer] = task
                task.add_done_callback(lambda _, peer=peer: self._asking.pop(peer, None))  # type: ignore[misc]

    async def _ask(self, peer: str) -> None:
        asked = time.monotonic()
        try:
            said = await self._peers.info(peer)
        except HubError:
            return
        known = self._met.get(peer)
        if known is not None:
            self._met[peer] = Met(peer, known.since, asked, said.mesh, said.lone, said.accepting)
            if said.mesh is not None:
                self._news.set()

    async def _join(self, peer: str) -> None:
        for _ in range(REDIRECTS_MAX):
            said, handshake = await self._peers.challenge(peer)
            if said.challenge is not None:
                await self._answer(peer, handshake)
                return
            if said.leader is None:
                raise HubRefused("it has no leader now")
            peer = said.leader
            await self._reach(peer, said.addrs)
        raise HubRefused("its members do not agree on who leads")

    async def _answer(self, leader: str, handshake: Handshake) -> None:
        """Proves this agent to the leader, and has the leader prove what it answers."""
        key, agent_id = self._peers.key, self._process.settings.agent_id
        head = {
            "mesh": handshake.mesh,
            "agent_id": agent_id,
            "proof": handshake.of_joiner(key, agent_id),
            "request": self._request,
            "table_version": TABLE_VERSION,
        }
        if (token := self._seats.token) is not None:
            head["token"] = token
        reply = await self._hub.request(leader, PEER_SERVICE, "join", head, timeout=JOIN_TIMEOUT_S)
        if reply.head.get("lost") is True:
            lost = read(LostVotes, reply.head)
            if lost.mesh != handshake.mesh or not same(lost.proof, handshake.of_refusal(key)):
                raise HubTampered(f"{leader} does not prove that it leads mesh {handshake.mesh}")
            file = self._process.settings.paths.vote_file
            await self._ask_for_new_identity(
                f"mesh {lost.mesh} lists it as a member, and the vote file {file} knows nothing of that"
            )
        said = read(Joined, reply.head)
        expected = handshake.of_leader(key, said.raft_id, said.founding, said.members)
        if said.mesh != handshake.mesh or not same(said.proof, expected):
            raise HubTampered(f"{leader} does not prove that it leads mesh {handshake.mesh}")
        try:
            base64.b64decode(said.founding, validate=True)
        except binascii.Error:
            raise HubTampered(f"the founding entry that {leader} sent is not base64") from None
        await self._hub.raft_adopt(said.mesh, said.raft_id, said.founding, said.members)
        self._process.log.info("joined the mesh", mesh=said.mesh, raft_id=said.raft_id)

    async def _ask_for_new_identity(self, why: str) -> NoReturn:
        """Has this agent's parent replace the identity, by a file that also its next start finds."""
        self.why = f"this agent's identity is being replaced: {why}"
        self._process.log.error("this agent's identity is to be replaced", reason=why)
        path = self._process.settings.paths.identity_lost
        await asyncio.to_thread(path.write_text, why + "\n", encoding="utf-8")
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")

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
        if await self._found_mesh(MeshSettings.of_founder(settings), []):
            self._process.log.info("founded a mesh", waited_s=settings.join_wait_s)

    async def _found_as_told(self, path: Path) -> None:
        """Founds the mesh that goes on from a lost one; its settings are those of the lost one."""
        try:
            with path.open("rb") as file:
                told = Instruction.model_validate_json(file.read(INSTRUCTION_MAX_BYTES))
        except (OSError, ValidationError) as error:
            what = error.strerror if isinstance(error, OSError) else f"{error.error_count()} fields are wrong"
            self.why = (
                f"{path} says how to found the mesh that goes on from a lost one, and cannot be read "
                f"({what}): mend it, or remove it to have this agent look for a mesh"
            )
            self._process.log.error("no mesh is founded", reason=self.why)
            await asyncio.sleep(JOIN_RETRY_S)
            return
        if await self._found_mesh(MeshSettings.of_entry(told.settings), told.recovers[:RECOVERS_MAX]):
            self._process.log.warning("founded the mesh that goes on from a lost one", recovers=told.recovers)

    async def _found_mesh(self, settings: MeshSettings, recovers: list[str]) -> bool:
        # Whoever asks meanwhile is not told "none": it might found as well.
        self.founding = True
        try:
            mesh = await self._hub.raft_found(settings, profile(self._process), recovers)
        except HubError as error:
            self.why = f"no mesh could be founded: {error.message}"
            self._process.log.error("no mesh could be founded", reason=error.message)
            await asyncio.sleep(JOIN_RETRY_S)
            return False
        finally:
            self.founding = False
        self.founded = True
        self.why = f"founded mesh {mesh}"
        return True


def profile(process: Process) -> dict[str, Any]:
    """What the mesh is told of this agent before its coordinator speaks for it."""
    settings, assignment = process.settings, process.assignments.current
    return {
        "agent_id": settings.agent_id,
        "role": assignment.role,
        "expertise": list(assignment.expertise),
        "specialization": assignment.specialization,
        "max_tasks": assignment.max_tasks,
        "version": settings.version,
        "accepting": False,
        "reason": "just joined",
    }

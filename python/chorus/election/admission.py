"""Takes agents in, on the leader: `challenge` and `join` of the peer service `mesh`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from chorus.config.forms import NAME
from chorus.config.secret import derive_join_key
from chorus.election.challenges import Challenges
from chorus.election.proof import Handshake, random_value, same
from chorus.election.search import Search
from chorus.election.seats import Seats
from chorus.hub import Hub, HubInvalid, HubNotPermitted, HubRefused, HubUnavailable, RaftStatus, Request
from chorus.license.gate import DEV_AGENTS_MAX
from chorus.process import Process
from chorus.table.reader import TableReader

# Changes of members go one at a time; who comes meanwhile waits its turn.
JOIN_TIMEOUT_S = 15.0
# Names one wish to join.
REQUEST = re.compile(r"[0-9a-f]{32}")
# What releases know at most that do not say it when they join.
UNSAID_TABLE_VERSION = 3
# Refused agents are told of this often at most.
REFUSALS_TOLD_S = 60.0


class Admission:
    """Answers `challenge` and `join`. `closed` says why this agent takes nobody in, "" while it does."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        search: Search,
        reader: TableReader,
        changing: asyncio.Lock,
        seats: Seats,
        *,
        closed: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._hub, self._search, self._reader = process, hub, search, reader
        self._clock, self.closed = clock, closed
        self.key = derive_join_key(process.settings.cluster_secret.get_secret_value())
        self._challenges = Challenges()
        self.seats = seats
        self._refusals, self._told_at = 0, float("-inf")
        # Shared with the leader's changes of members, and with this agent's leaving.
        self.changing = changing

    async def serve(self, request: Request) -> dict[str, Any]:
        """Handles the two methods of the service."""
        if request.peer is None:
            raise HubInvalid("only another agent joins")
        if request.method == "challenge":
            return await self._challenge(request.peer, request.head)
        if request.method == "join":
            return await self._join(request.peer, request.head)
        raise HubInvalid(f"mesh has no method {request.method!r}")

    async def _status(self) -> RaftStatus:
        status = await self._hub.raft_status()
        if status.mesh is None and self._search.founding:
            raise HubUnavailable("founding a mesh right now; ask again")
        return status

    async def _challenge(self, peer: str, head: dict[str, Any]) -> dict[str, Any]:
        """`challenge` {nonce}: this agent's own proof first; the leader adds a challenge for the other."""
        nonce = random_value(head.get("nonce"), "nonce")
        status = await self._status()
        shown = Handshake(status.mesh or "", self._hub.peer_id, peer, nonce)
        said = {"mesh": status.mesh, "proof": shown.of_holder(self.key)}
        if status.role == "leader":
            return {**said, "challenge": self._challenges.give(peer, nonce, self._clock())}
        return {**said, "leader": status.leader, "addrs": await self._addresses(status.leader)}

    async def _join(self, peer: str, head: dict[str, Any]) -> dict[str, Any]:
        """`join` {mesh, agent_id, proof, request, table_version?, token?}: answers the peer's last challenge.

        `request` is the same when the agent asks again because no answer came. A member that asks with
        another one has lost its vote file: it is told so, and gets no place under this identity.
        """
        agent_id = head.get("agent_id")
        if not isinstance(agent_id, str) or not NAME.fullmatch(agent_id):
            raise HubInvalid("agent_id: give 1 to 64 letters, digits, _ or -")
        request = head.get("request")
        if not isinstance(request, str) or not REQUEST.fullmatch(request):
            raise HubInvalid("request: give 32 hexadecimal digits")
        given = self._challenges.take(peer, self._clock())
        if given is None:
            raise HubRefused("no challenge of this agent's is open; ask for one and answer it within 10 s")
        challenge, nonce = given
        status = await self._hub.raft_status()
        if status.mesh is None or status.role != "leader":
            raise HubUnavailable("this agent does not lead a mesh now; ask again who does")
        handshake = Handshake(status.mesh, self._hub.peer_id, peer, nonce, challenge)
        if head.get("mesh") != status.mesh or not same(
            head.get("proof"), handshake.of_joiner(self.key, agent_id)
        ):
            self._tell_of_refusal(peer)
            raise HubRefused("the agent does not prove that it holds this mesh's cluster secret")
        self._check_version(agent_id, head.get("table_version", UNSAID_TABLE_VERSION))
        lease = await asyncio.to_thread(self.seats.check, peer, head.get("token"))
        async with self.changing:
            if why := self.closed():
                raise HubUnavailable(why)
            await self._check_room(peer, lease, await self._hub.raft_status())
            licence = self._process.settings.license_kind
            body = {"agent_id": agent_id, "licence": licence, "request": request}
            try:
                added = await self._hub.raft_add(peer, body, timeout=JOIN_TIMEOUT_S)
            except HubNotPermitted as error:
                self._process.log.warning("an agent needs a new identity", peer=peer, reason=error.message)
                return {"mesh": handshake.mesh, "lost": True, "proof": handshake.of_refusal(self.key)}
            self.seats.took(peer, lease)
            status = await self._hub.raft_status()
        self._process.log.info("took an agent in", peer=peer, agent=agent_id)
        members = [(member.raft_id, member.peer) for member in status.members]
        return {
            "mesh": handshake.mesh,
            "raft_id": added.raft_id,
            "founding": added.founding,
            "members": members,
            "proof": handshake.of_leader(self.key, added.raft_id, added.founding, members),
        }

    def _tell_of_refusal(self, peer: str) -> None:
        """One line for many: whoever has no secret may try as often as it likes."""
        self._refusals += 1
        if self._clock() >= self._told_at + REFUSALS_TOLD_S:
            self._process.log.warning(
                "refused an agent without the cluster secret", peer=peer, refusals=self._refusals
            )
            self._told_at, self._refusals = self._clock(), 0

    def _check_version(self, agent_id: str, known: object) -> None:
        """Who cannot read this mesh's table would be a member that votes and does nothing else."""
        if type(known) is not int:
            raise HubInvalid("table_version: give a whole number")
        mesh = self._reader.mesh()
        if mesh is not None and mesh.version > known:
            raise HubRefused(
                f"this mesh's table has version {mesh.version}, and the release of {agent_id} knows version"
                f" {known}: install a newer one on that agent"
            )

    async def _check_room(self, peer: str, lease: str | None, status: RaftStatus) -> None:
        """Looks at who is present: one that is away holds no place. One that the table lacks has just come.

        KACHING counts the seats of its licences itself.
        """
        listed = {member.peer for member in status.members}
        self.seats.forget_all_but(listed)
        away = {member.peer for member in self._reader.members() if not member.present}
        present = listed - away - {peer}
        await self.seats.check_free(lease, present)
        if peer in listed or self.seats.licensed:
            return  # in the mesh already, it comes back
        if len(present) >= DEV_AGENTS_MAX:
            raise HubRefused(
                f"the licence allows {DEV_AGENTS_MAX} agents that are present, and the mesh has them"
            )

    async def _addresses(self, peer: str | None) -> list[str]:
        state = await self._hub.net_state()
        found = next((item for item in state["peers"] if item["peer"] == peer), None)
        return [str(address) for address in found["addrs"]] if found is not None else []

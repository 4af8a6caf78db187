"""The peer service `mesh`: what members and agents without a mesh may ask this agent's election process.

`info`, `challenge`, `join` and `standing` are all that a peer is served that is no member; they tell no more
than joining, and finding that one was removed, takes.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus.election.admission import Admission
from chorus.election.duties import Duties
from chorus.election.lone import is_lone, recovers
from chorus.election.peers import RECOVERS_MAX, MeshId, PeerId, RaftId
from chorus.election.proof import Handshake, random_value
from chorus.election.search import Search
from chorus.hub import Hub, HubInvalid, HubNotPermitted, HubUnavailable, RaftStatus, Request
from chorus.table.reader import TableReader
from chorus.wire.schema import Schema

AskedT = TypeVar("AskedT", bound=BaseModel)


class StandingAsked(Schema):
    """`standing`: does `mesh` list its member `raft_id` no more?"""

    model_config = ConfigDict(strict=True, extra="ignore")

    mesh: MeshId
    raft_id: RaftId
    nonce: str


class RemovalAsked(Schema):
    """`remove`: of the member that is this peer, also when it is present with `force`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    peer: PeerId
    force: bool = Field(default=False)


class MeshService:
    """Answers peers."""

    def __init__(
        self, hub: Hub, search: Search, admission: Admission, duties: Duties, reader: TableReader
    ) -> None:
        self._hub, self._search, self._admission, self._duties = hub, search, admission, duties
        self._reader = reader

    async def serve(self, request: Request) -> dict[str, Any]:
        """The handler of the service."""
        if request.method == "info":
            return await self._info()
        if request.peer is None:
            raise HubInvalid("only another agent asks this")
        match request.method:
            case "challenge" | "join":
                return await self._admission.serve(request)
            case "standing":
                return await self._standing(request.peer, request.head)
            case "last":
                await self._check_member(request.peer)
                return await self._last()
            case "lease":
                await self._check_member(request.peer)
                return {"lease": self._admission.seats.lease}
            case "remove":
                await self._check_member(request.peer)
                asked = _read(RemovalAsked, request.head)
                await self._duties.remove(asked.peer, force=asked.force)
                return {}
        raise HubInvalid(f"mesh has no method {request.method!r}")

    async def _info(self) -> dict[str, Any]:
        """`info`: see `peers.Info`."""
        status = await self._status()
        return {
            "mesh": status.mesh,
            "lone": is_lone(status, self._reader, self._hub.peer_id),
            "recovers": list(recovers(status)[:RECOVERS_MAX]),
            "leader": status.leader is not None,
            "accepting": not self._admission.closed(),
        }

    async def _standing(self, peer: str, head: dict[str, Any]) -> dict[str, Any]:
        """`standing` {mesh, raft_id, nonce}: who joined before what is applied here and is not listed was
        removed, for good: a raft id is never given twice.
        """
        asked = _read(StandingAsked, head)
        nonce = random_value(asked.nonce, "nonce")
        mesh, applied = self._reader.mesh(), self._reader.applied()
        # Asked after the table: consensus lists a member before the table does.
        status = await self._status()
        removed = (
            mesh is not None
            and mesh.mesh == status.mesh == asked.mesh
            and asked.raft_id <= applied
            and all(member.raft_id != asked.raft_id for member in status.members)
        )
        shown = Handshake(status.mesh or "", self._hub.peer_id, peer, nonce)
        proof = shown.of_standing(self._admission.key, asked.raft_id, removed)
        return {"mesh": status.mesh, "removed": removed, "proof": proof}

    async def _last(self) -> dict[str, Any]:
        """`last`: how far this agent's log goes."""
        status = await self._hub.raft_status()
        return {
            "mesh": status.mesh,
            "last": status.last,
            "term": status.last_term,
            "applied": self._reader.applied(),
        }

    async def _check_member(self, peer: str) -> None:
        status = await self._hub.raft_status()
        if all(member.peer != peer for member in status.members):
            raise HubNotPermitted("only members of the mesh are served this; join it first")

    async def _status(self) -> RaftStatus:
        status = await self._hub.raft_status()
        if status.mesh is None and self._search.founding:
            raise HubUnavailable("founding a mesh right now; ask again")
        return status


def _read(kind: type[AskedT], head: dict[str, Any]) -> AskedT:
    """What was asked, in its form; raises HubInvalid that names the fields."""
    try:
        return kind.model_validate(head)
    except ValidationError as error:
        first = error.errors()[0]
        raise HubInvalid(f"{'.'.join(map(str, first['loc'])) or 'head'}: {first['msg']}") from None

"""The one-call methods of the fake hub: consensus on its one log, records, log, sealing, network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from chorus.config import MeshSettings
from chorus.hub import (
    Added,
    DhtValue,
    Hub,
    HubClosed,
    HubNoMesh,
    HubNotFound,
    HubNotLeader,
    HubNotPermitted,
    HubRefused,
    LogPage,
    Member,
    Proposed,
    RaftStatus,
    Signed,
)
from chorus.hub.errors import error_from
from chorus.hub.methods import encode_json

if TYPE_CHECKING:
    from chorus.testing.fake_hub import FakeAgent, FakeMesh


class FakeMethods(Hub):
    """What a `FakeHub` answers out of the world it lives in."""

    mesh: FakeMesh
    agent: FakeAgent

    # Consensus

    async def propose(
        self, type: str, body: Any, *, entry_id: str | None = None, timeout: float = 15.0
    ) -> Proposed:
        self._check_member()
        if self.mesh.leader is None or not self.mesh.reaches(self.mesh.leader, self.peer_id):
            raise error_from("no_leader", "the mesh has no leader now")
        return self.mesh.append(type, self.peer_id, body, entry_id)

    async def raft_status(self) -> RaftStatus:
        self._check()
        mesh, agent = self.mesh, self.agent
        if agent.raft_id == 0:
            return RaftStatus(None, 0, 0, "none", None, 0, 0, removed=agent.removed)
        role = "leader" if mesh.leader == agent.peer_id else "follower" if agent.voter else "learner"
        last = len(mesh.entries)
        members = tuple(
            Member(
                member.raft_id,
                member.peer_id,
                member.voter,
                last,
                mesh.reaches(member.peer_id, agent.peer_id),
            )
            for member in mesh.agents.values()
            if member.raft_id
        )
        return RaftStatus(
            mesh.mesh,
            agent.raft_id,
            mesh.term,
            role,
            mesh.leader,
            last,
            last,
            members,
            mesh.settings,
            mesh.founding,
            last_term=mesh.term,
        )

    async def raft_found(
        self, settings: MeshSettings, agent: Mapping[str, Any], recovers: Iterable[str] = ()
    ) -> str:
        self._check()
        return self.mesh.start(self.agent, settings, dict(agent), list(recovers))

    async def raft_add(self, peer: str, body: Mapping[str, Any], timeout: float = 15.0) -> Added:
        self._check_leader()
        joiner = self.mesh.by_peer(peer)
        if joiner is None:
            raise HubNotFound(f"no agent is {peer}")
        founding = base64.b64encode(orjson.dumps(self.mesh.founding)).decode()
        request = str(body["request"])
        if peer in self.mesh.admitted or joiner.raft_id:
            asked, raft_id = self.mesh.admitted.get(peer, ("", 0))
            if asked != request:
                raise HubNotPermitted(f"{peer} is a member already and has lost its vote file")
            return Added(raft_id, raft_id, founding)
        proposed = self.mesh.append("join", self.peer_id, {"peer": peer, **body})
        self.mesh.admitted[peer] = (request, proposed.index)
        return Added(proposed.index, proposed.index, founding)

    async def raft_adopt(
        self, mesh: str, raft_id: int, founding: str, members: Iterable[tuple[int, str]] = ()
    ) -> None:
        self._check()
        if self.agent.raft_id:
            raise HubRefused("this agent is in a mesh already")
        self.agent.raft_id = raft_id
        for hub in self.agent.hubs:
            hub.advance_followers()

    async def raft_promote(self, peer: str, timeout: float = 15.0) -> None:
        self._set_voter(peer, True)

    async def raft_demote(self, peer: str, timeout: float = 15.0) -> None:
        self._set_voter(peer, False)

    def _set_voter(self, peer: str, voter: bool) -> None:
        self._check_leader()
        member = self.mesh.by_peer(peer)
        if member is None or not member.raft_id:
            raise HubNotFound(f"{peer} is no member")
        member.voter = voter
        self.mesh.append("voter", self.peer_id, {"peer": peer, "voter": voter})

    async def raft_remove(self, peer: str, reason: str, timeout: float = 15.0) -> int:
        self._check_leader()
        member = self.mesh.by_peer(peer)
        if member is None or not member.raft_id:
            raise HubNotFound(f"{peer} is no member")
        if member.voter:
            raise HubRefused(f"{peer} votes: take its vote first")
        body = {"peer": peer, "raft_id": member.raft_id, "reason": reason}
        member.raft_id, member.removed = 0, f"this agent was removed: {reason}"
        self.mesh.admitted.pop(peer, None)
        return self.mesh.append("removal", self.peer_id, body).index

    async def raft_transfer(self, to: str, timeout: float = 15.0) -> None:
        self._check_leader()
        member = self.mesh.by_peer(to)
        if member is None or not member.voter:
            raise HubRefused(f"refused: {to} is no voter")
        self.mesh.elect(member.agent_id)

    async def raft_campaign(self) -> None:
        self._check_member()
        self.mesh.elect(self.agent_id)

    async def raft_read_index(self, timeout: float = 15.0) -> int:
        self._check_leader()
        return len(self.mesh.entries)

    async def raft_set_score(self, score: float) -> None:
        self._check()
        self.agent.score = score

    # Log, DHT, sealing, network

    async def log_append(self, type: str, data: Any) -> int:
        self._check()
        seq = len(self.agent.log)
        plain = orjson.loads(encode_json(data))
        self.agent.log.append(
            {"type": type, "timestamp": self.mesh.stamp(), "author": self.peer_id, "data": plain, "seq": seq}
        )
        for hub in self.agent.hubs:
            hub.advance_followers()
        return seq

    async def log_read(
        self,
        start: int | None = None,
        count: int = 1000,
        *,
        type: str | None = None,
        newest_first: bool = False,
    ) -> LogPage:
        log = self.agent.log
        before = log[: len(log) if start is None else start]
        ordered = before[::-1] if newest_first else log[start or 0 :]
        chosen = [entry for entry in ordered if type is None or entry["type"] == type]
        end = 0 if newest_first else max(len(log), start or 0)
        if len(chosen) > count:
            end = chosen[count - 1]["seq"] + (0 if newest_first else 1)
        return LogPage(chosen[:count], end, len(log))

    async def log_info(self) -> dict[str, Any]:
        return {"length": len(self.agent.log), "key": "fake", "fork": 0}

    async def dht_put(self, kind: str, name: str, value: bytes, *, role: str | None = None) -> str:
        self._check()
        key = f"/chorus/{kind}/{name}"
        self.mesh.records[key] = DhtValue(self.peer_id, role, self.mesh.stamp(), self.mesh.stamp(), value)
        return key

    async def dht_get(
        self, kind: str, name: str, *, hints: Iterable[str] = (), timeout: float = 30.0
    ) -> DhtValue:
        self._check()
        value = self.mesh.records.get(f"/chorus/{kind}/{name}")
        if value is None:
            raise HubNotFound(f"not found: {kind}/{name}")
        return value

    async def dht_provide(self, key: str) -> None:
        self.mesh.providers.setdefault(key, set()).add(self.peer_id)

    async def dht_find(self, key: str) -> list[str]:
        return sorted(self.mesh.providers.get(key, ()))

    async def scan(self, data: bytes) -> list[dict[str, Any]]:
        return []

    async def redact(self, data: bytes) -> bytes:
        return data

    async def redact_json(self, data: bytes) -> bytes:
        return data

    async def sign(self, data: bytes) -> Signed:
        digest = base64.b64encode(hashlib.sha256(self.peer_id.encode() + data).digest()).decode()
        return Signed(digest, base64.b64encode(self.peer_id.encode()).decode())

    async def seal(self, data: bytes, *, role: str | None = None) -> bytes:
        return b"sealed:" + data

    async def open_sealed(self, sealed: bytes) -> bytes:
        return sealed.removeprefix(b"sealed:")

    async def net_state(self) -> dict[str, Any]:
        peers = [
            {
                "peer": agent.peer_id,
                "addrs": [],
                "agent_version": f"chorus/{agent.agent_id}",
                "since": 0,
                "rtt_ms": 1.0,
            }
            for agent in self.mesh.agents.values()
            if agent is not self.agent and self.mesh.reaches(agent.peer_id, self.peer_id)
        ]
        return {
            "peer_id": self.peer_id,
            "agent_id": self.agent_id,
            "listen": [],
            "peers": peers,
            "mdns": False,
            "clock_skew": False,
            "role_keys": "derived from the cluster secret",
        }

    async def dial(self, addr: str, timeout: float = 10.0) -> None:
        self.agent.dialled.append(addr)

    async def stats(self) -> dict[str, Any]:
        return {}

    def _check(self) -> None:
        if self._closed:
            raise HubClosed("this hub client is closed")

    def _check_member(self) -> None:
        self._check()
        if not self.agent.raft_id:
            raise HubNoMesh("this agent is not in a mesh yet")

    def _check_leader(self) -> None:
        self._check_member()
        if self.mesh.leader != self.peer_id:
            raise HubNotLeader("this agent does not lead the mesh")

"""The hub's methods with types: thin wrappers. How a call travels belongs to the client."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from chorus.config.mesh import MeshSettings
from chorus.hub.types import Added, DhtValue, LogPage, Proposed, RaftStatus, Reply, Signed

# A proposal waits this long for its commit unless told otherwise: an election fits in.
PROPOSE_TIMEOUT_S = 15.0
# A DHT operation asks many peers.
DHT_TIMEOUT_S = 30.0
# A large value is written block by block.
DHT_PUT_TIMEOUT_S = 60.0


def encode_json(data: Any) -> bytes:
    """JSON as the hub wants payloads; bytes are taken as JSON already."""
    return bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else orjson.dumps(data)


class HubMethods:
    """Everything that is one call and one answer."""

    async def call(
        self,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        """One of the hub's own methods."""
        raise NotImplementedError

    async def publish(
        self,
        topic: str,
        type: str,
        data: Any,
        *,
        hop_count: int | None = None,
        priority: str | None = None,
        thread_id: str | None = None,
    ) -> str:
        """Publishes to the mesh; the core makes and signs the envelope and redacts secrets."""
        head: dict[str, Any] = {"topic": topic, "type": type}
        if hop_count is not None:
            head["hop_count"] = hop_count
        if priority is not None:
            head["priority"] = priority
        if thread_id is not None:
            head["thread_id"] = thread_id
        reply = await self.call("publish", head, encode_json(data))
        return str(reply.head.get("id", ""))

    async def publish_local(self, topic: str, data: Any) -> None:
        """Publishes to this agent's processes only; `topic` begins with `local/`."""
        await self.call("publish", {"topic": topic}, encode_json(data))

    async def propose(
        self, type: str, body: Any, *, entry_id: str | None = None, timeout: float = PROPOSE_TIMEOUT_S
    ) -> Proposed:
        """Proposes an entry and waits for its commit. After a timeout repeat with the same `entry_id`."""
        head: dict[str, Any] = {"type": type, "timeout_ms": int(timeout * 1000)}
        if entry_id is not None:
            head["id"] = entry_id
        reply = await self.call("raft.propose", head, encode_json(body), timeout=timeout)
        return Proposed(int(reply.head["index"]), str(reply.head["id"]))

    async def raft_status(self) -> RaftStatus:
        """The consensus machine now."""
        return RaftStatus.from_head((await self.call("raft.status")).head)

    async def raft_found(
        self, settings: MeshSettings, agent: Mapping[str, Any], recovers: Iterable[str] = ()
    ) -> str:
        """Founds a mesh with this agent as its only voter; returns the mesh id.

        `recovers` are the ids of the meshes that the new one goes on from, newest first.
        """
        head: dict[str, Any] = {"settings": settings.to_entry(), "agent": dict(agent)}
        if meshes := list(recovers):
            head["recovers"] = meshes
        reply = await self.call("raft.found", head)
        return str(reply.head["mesh"])

    async def raft_adopt(
        self, mesh: str, raft_id: int, founding: str, members: Iterable[tuple[int, str]] = ()
    ) -> None:
        """On a joiner: initialises the machine from what `raft_add` gave; `members`: (raft id, peer id)."""
        known = [{"raft_id": raft, "peer": peer} for raft, peer in members]
        head = {"mesh": mesh, "raft_id": raft_id, "founding": founding, "members": known}
        await self.call("raft.adopt", head)

    async def raft_add(self, peer: str, body: Mapping[str, Any], timeout: float = PROPOSE_TIMEOUT_S) -> Added:
        """On the leader: adds a learner; `body` is its `join` profile."""
        head = {"peer": peer, "body": dict(body), "timeout_ms": int(timeout * 1000)}
        reply = (await self.call("raft.add", head, timeout=timeout)).head
        return Added(int(reply["raft_id"]), int(reply["index"]), str(reply["founding"]))

    async def raft_promote(self, peer: str, timeout: float = PROPOSE_TIMEOUT_S) -> None:
        """On the leader: makes a learner a voter."""
        await self.call("raft.promote", {"peer": peer}, timeout=timeout)

    async def raft_demote(self, peer: str, timeout: float = PROPOSE_TIMEOUT_S) -> None:
        """On the leader: makes a voter a learner."""
        await self.call("raft.demote", {"peer": peer}, timeout=timeout)

    async def raft_remove(self, peer: str, reason: str, timeout: float = PROPOSE_TIMEOUT_S) -> int:
        """On the leader: removes a learner; returns the removal's index.

        Raises HubNotFound for a peer that is not listed; HubRefused while it votes, for the leader itself,
        and while another change is under way.
        """
        reply = await self.call("raft.remove", {"peer": peer, "reason": reason}, timeout=timeout)
        return int(reply.head["index"])

    async def raft_transfer(self, to: str, timeout: float = PROPOSE_TIMEOUT_S) -> None:
        """On the leader: hands leadership over to a voter."""
        await self.call("raft.transfer", {"to": to}, timeout=timeout)

    async def raft_campaign(self) -> None:
        """Stands for election now."""
        await self.call("raft.campaign")

    async def raft_read_index(self, timeout: float = PROPOSE_TIMEOUT_S) -> int:
        """On the leader: proves leadership; returns the index up to which a read must have applied."""
        return int((await self.call("raft.read_index", timeout=timeout)).head["index"])

    async def raft_set_score(self, score: float) -> None:
        """This agent's fitness to lead, 0 to 1; a better one stands earlier."""
        await self.call("raft.score", {"score": score})

    async def log_append(self, type: str, data: Any) -> int:
        """Appends to the signed log; durable when it returns. Returns the sequence number."""
        return int((await self.call("log.append", {"type": type}, encode_json(data))).head["seq"])

    async def log_read(
        self,
        start: int | None = None,
        count: int = 1000,
        *,
        type: str | None = None,
        newest_first: bool = False,
    ) -> LogPage:
        """At most `count` entries of the log from number `start` on; newest first, those before it.

        Without `start` from the beginning, or from the end. With `type` only those of that type.
        """
        order = "newest" if newest_first else "oldest"
        head = {"from": start, "count": count, "type": type, "order": order}
        reply = await self.call("log.read", head)
        return LogPage(orjson.loads(reply.payload), int(reply.head["next"]), int(reply.head["length"]))

    async def log_info(self) -> dict[str, Any]:
        """Length, key and fork of the log."""
        return (await self.call("log.info")).head

    async def dht_put(self, kind: str, name: str, value: bytes, *, role: str | None = None) -> str:
        """Seals, signs and stores a value of at most 16 MiB; returns its key once enough agents have it.

        Raises HubTooLarge, HubQuorumFailed or HubTimeout (this agent has it and goes on giving it to
        others), or HubRefused for a value with a secret in it.
        """
        head = {"kind": kind, "name": name, "role": role}
        return str((await self.call("dht.put", head, value, timeout=DHT_PUT_TIMEOUT_S)).head["key"])

    async def dht_get(
        self, kind: str, name: str, *, hints: Iterable[str] = (), timeout: float = DHT_TIMEOUT_S
    ) -> DhtValue:
        """Finds, checks and opens a value; the peers in `hints` are asked if nobody else has it.

        Raises HubNotFound, HubNotPermitted (sealed for another role), HubTampered, HubQuorumFailed or
        HubTimeout.
        """
        head_out = {"kind": kind, "name": name, "from": list(hints)}
        reply = await self.call("dht.get", head_out, timeout=timeout)
        head = reply.head
        return DhtValue(
            author=str(head["author"]),
            role=head.get("role") or None,
            created_at=int(head.get("created_at") or 0),
            version=int(head.get("version") or 0),
            payload=reply.payload,
        )

    async def dht_provide(self, key: str) -> None:
        """Says that this agent holds what `key` names."""
        await self.call("dht.provide", {"key": key}, timeout=DHT_TIMEOUT_S)

    async def dht_find(self, key: str) -> list[str]:
        """The peers that said so."""
        return [
            str(peer)
            for peer in (await self.call("dht.find", {"key": key}, timeout=DHT_TIMEOUT_S)).head["peers"]
        ]

    async def scan(self, data: bytes) -> list[dict[str, Any]]:
        """Secrets found in `data`: rule, severity, start, end."""
        findings: list[dict[str, Any]] = (await self.call("scan", None, data)).head["findings"]
        return findings

    async def redact(self, data: bytes) -> bytes:
        """`data` with every secret found replaced."""
        return (await self.call("redact", None, data)).payload

    async def redact_json(self, data: bytes) -> bytes:
        """A JSON document with every secret in its strings and names replaced; as it is without any.

        As one text, the end of a string and the name after it could look like a secret.
        """
        return (await self.call("redact_json", None, data)).payload

    async def sign(self, data: bytes) -> Signed:
        """Signs with this agent's key."""
        head = (await self.call("sign", None, data)).head
        return Signed(str(head["signature"]), str(head["public_key"]))

    async def seal(self, data: bytes, *, role: str | None = None) -> bytes:
        """Seals to a role and the roles that may read it; None: to every member."""
        return (await self.call("seal", {"role": role}, data)).payload

    async def open_sealed(self, sealed: bytes) -> bytes:
        """Opens what was sealed to a role this agent holds."""
        return (await self.call("open", None, sealed)).payload

    async def net_state(self) -> dict[str, Any]:
        """peer_id, agent_id, listen, peers, mdns, clock_skew."""
        return (await self.call("net.state")).head

    async def dial(self, addr: str, timeout: float = 10.0) -> None:
        """Connects to a multiaddr."""
        await self.call("net.dial", {"addr": addr}, timeout=timeout)

    async def stats(self) -> dict[str, Any]:
        """The core's counters."""
        return (await self.call("stats")).head


def decode_base64(text: str) -> bytes:
    """Base64 of the hub's heads to bytes."""
    return base64.b64decode(text, validate=True)

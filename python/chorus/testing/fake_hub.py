"""A hub in memory: several agents and their processes joined by one gossip, one network and one ordered log.

`FakeMesh` holds the world, `FakeHub` is what a process gets in place of a real `Hub`. Nothing is signed or
sealed, everything is delivered at once; partitions are made with `FakeMesh.cut`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from chorus.config import MeshSettings
from chorus.hub import (
    ByteStream,
    DhtValue,
    Handler,
    HubError,
    HubRefused,
    HubTimeout,
    HubUnavailable,
    Proposed,
    Reply,
    Request,
    StreamHandler,
)
from chorus.hub.errors import error_from
from chorus.hub.feeds import EntryFeed, EventFeed, Feed, LogFeed, LogVerifyFeed, Subscription
from chorus.hub.methods import encode_json
from chorus.hub.services import SERVICES
from chorus.testing.fake_methods import FakeMethods

Clock = Callable[[], int]


@dataclass(slots=True)
class _Entry:
    head: dict[str, Any]
    payload: bytes


@dataclass(slots=True)
class FakeAgent:
    """One agent of the fake mesh: its processes' offers, feeds, log and place in the consensus group."""

    peer_id: str
    agent_id: str
    hubs: list[FakeHub] = field(default_factory=list)
    offers: dict[str, tuple[FakeHub, Handler, bool, StreamHandler | None]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    raft_id: int = 0
    voter: bool = False
    # Why it is no member any more, as its own log says.
    removed: str = ""
    score: float = 0.0


class FakeMesh:
    """The world that fake hubs live in. `now_ms` stamps entries and messages; set it or pass a clock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.agents: dict[str, FakeAgent] = {}
        self.mesh: str | None = None
        self.term = 0
        self.leader: str | None = None
        self.settings: MeshSettings | None = None
        self.founding: dict[str, Any] | None = None
        self.entries: list[_Entry] = []
        # By peer id: the request that it was admitted for, and its raft id.
        self.admitted: dict[str, tuple[str, int]] = {}
        self.now_ms = 1_700_000_000_000
        self.published: list[tuple[str, str, str, Any]] = []
        self._clock = clock
        self._ids = itertools.count(1)
        self._sequence = itertools.count(1)
        self._index_of: dict[str, int] = {}
        self.records: dict[str, DhtValue] = {}
        self.providers: dict[str, set[str]] = {}
        self._cuts: set[frozenset[str]] = set()

    def hub(self, agent: str, process: str) -> FakeHub:
        """The hub of process `process` of agent `agent`; both are made when they are new."""
        owner = self.agent(agent)
        hub = FakeHub(self, owner, process)
        owner.hubs.append(hub)
        return hub

    def agent(self, name: str) -> FakeAgent:
        """The agent of that name, made when it is new."""
        if name not in self.agents:
            self.agents[name] = FakeAgent(peer_id=f"peer-{name}", agent_id=name)
        return self.agents[name]

    def cut(self, a: str, b: str) -> None:
        """Two agents do not reach each other until `heal`."""
        self._cuts.add(frozenset((f"peer-{a}", f"peer-{b}")))

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        self._cuts.clear()

    def found(self, leader: str, settings: MeshSettings | None = None, *others: str) -> None:
        """A mesh in one step: `leader` founds it, `others` are voters from the start."""
        self.start(self.agent(leader), settings or MeshSettings(), {"agent_id": leader})
        for name in others:
            agent = self.agent(name)
            self.append("join", agent.peer_id, {"peer": agent.peer_id, "agent_id": name})
            agent.raft_id, agent.voter = len(self.entries), True

    def elect(self, leader: str | None) -> None:
        """Another agent leads (None: nobody); a new term begins with its `leader` entry."""
        before = self.by_peer(self.leader) if self.leader else None
        self.leader = None if leader is None else self.agents[leader].peer_id
        if before is not None and before.peer_id != self.leader:
            self.emit({"kind": "step_down", "term": self.term, "reason": "quorum_loss"}, before.agent_id)
        if self.leader is not None:
            self.term += 1
            self.append("leader", self.leader, {"term": self.term})
            self.emit({"kind": "leader", "peer": self.leader, "term": self.term})

    def emit(self, event: Mapping[str, Any], agent: str | None = None) -> None:
        """An event for every process, or for those of one agent."""
        for owner in self.agents.values():
            if agent is None or owner.agent_id == agent:
                for hub in owner.hubs:
                    hub._deliver("events", dict(event), b"")

    def stamp(self) -> int:
        """The time of the world in milliseconds."""
        return self._clock() if self._clock is not None else self.now_ms

    def reaches(self, a: str, b: str) -> bool:
        """Whether two peers reach each other."""
        return a == b or frozenset((a, b)) not in self._cuts

    def by_peer(self, peer: str) -> FakeAgent | None:
        """The agent with that peer id."""
        return next((agent for agent in self.agents.values() if agent.peer_id == peer), None)

    def start(
        self,
        agent: FakeAgent,
        settings: MeshSettings,
        profile: dict[str, Any],
        recovers: Sequence[str] = (),
    ) -> str:
        """Founds the mesh for `agent`; refused when there is one."""
        if self.mesh is not None:
            raise HubRefused("this agent is in a mesh already")
        self.mesh = f"mesh-{next(self._ids):026d}"
        self.settings = settings
        said = settings.to_entry()
        self.leader, self.term = agent.peer_id, 1
        agent.raft_id, agent.voter = 1, True
        body = {"settings": said, "agent": profile} | ({"recovers": list(recovers)} if recovers else {})
        self.founding = {**body, "author": agent.peer_id}
        self.append("found", agent.peer_id, body)
        self.append("leader", agent.peer_id, {"term": 1})
        return self.mesh

    def append(self, type: str, author: str, body: Any, entry_id: str | None = None) -> Proposed:
        """Commits an entry at once; an id that is known gives the index it has."""
        ident = entry_id or f"{next(self._ids):026d}"
        if ident in self._index_of:
            return Proposed(self._index_of[ident], ident)
        index = len(self.entries) + 1
        head = {
            "index": index,
            "term": self.term,
            "stamp": self.stamp(),
            "type": type,
            "id": ident,
            "author": author,
            "seen": index - 1,
        }
        self.entries.append(_Entry(head, encode_json(body)))
        self._index_of[ident] = index
        for agent in self.agents.values():
            for hub in agent.hubs:
                hub.advance_followers()
        return Proposed(index, ident)


class FakeHub(FakeMethods):
    """A process's place in a `FakeMesh`; everything a `Hub` offers, without a socket."""

    def __init__(self, mesh: FakeMesh, agent: FakeAgent, name: str) -> None:
        super().__init__("/nonexistent/fake-hub.sock", name)
        self.mesh = mesh
        self.agent = agent
        self.peer_id = agent.peer_id
        self.agent_id = agent.agent_id
        self.version = "fake"
        self.connected.set()

    async def close(self) -> None:
        """Takes the process away: its offers and feeds are gone."""
        self._closed = True
        self.connected.clear()
        if self in self.agent.hubs:
            self.agent.hubs.remove(self)
        for service in [name for name, offer in self.agent.offers.items() if offer[0] is self]:
            del self.agent.offers[service]
        for feed in self._feeds:
            feed.on_end()
        self._server.close()

    # Topics

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
        self._check()
        plain = orjson.loads(encode_json(data))
        optional = {"hop_count": hop_count, "priority": priority, "thread_id": thread_id}
        envelope = {"type": type, "from": self.peer_id, "timestamp": self.mesh.stamp(), "data": plain}
        envelope |= {name: value for name, value in optional.items() if value is not None}
        self.mesh.published.append((self.agent_id, topic, type, plain))
        sequence = next(self.mesh._sequence)
        ident = f"{sequence:040x}"
        head = {
            "topic": topic,
            "type": type,
            "from": self.peer_id,
            "timestamp": self.mesh.stamp(),
            "id": ident,
            "seq": sequence,
        }
        for agent in self.mesh.agents.values():
            # As gossipsub: the publisher does not hear itself.
            if agent is not self.agent and self.mesh.reaches(agent.peer_id, self.peer_id):
                for hub in agent.hubs:
                    hub._deliver_topic(topic, head, orjson.dumps(envelope))
        return ident

    async def publish_local(self, topic: str, data: Any) -> None:
        self._check()
        for hub in self.agent.hubs:
            hub._deliver_topic(topic, {"topic": topic, "from": self.name}, encode_json(data))

    async def attach_feed(self, feed: Feed[Any]) -> None:
        self._check()
        self._feeds.append(feed)
        feed.on_attached(len(self._feeds))
        if isinstance(feed, LogVerifyFeed):
            length = len(self.agent.log)
            feed.on_event({"kind": "end", "genuine": True, "checked": length, "length": length}, b"")
        self.advance_followers()

    async def detach_feed(self, feed: Feed[Any]) -> None:
        if feed in self._feeds:
            self._feeds.remove(feed)

    def give_credit(self, feed: Feed[Any], n: int) -> None:
        """Queues of the fake have no bound."""

    def _deliver(self, method: str, head: dict[str, Any], payload: bytes) -> None:
        for feed in self._feeds:
            if feed.method == method and isinstance(feed, EventFeed):
                feed.on_event(head, payload)

    def _deliver_topic(self, topic: str, head: dict[str, Any], payload: bytes) -> None:
        for feed in self._feeds:
            if isinstance(feed, Subscription) and topic in feed.topics:
                feed.on_event(head, payload)

    def advance_followers(self) -> None:
        """Hands committed entries, and those of the log, to those who follow."""
        for feed in self._feeds:
            if isinstance(feed, LogFeed):
                for note in self.agent.log[feed.next_seq :]:
                    if feed.type in (None, note["type"]):
                        feed.on_event({"seq": note["seq"]}, orjson.dumps(note))
        if self.agent.raft_id == 0:
            return
        for feed in self._feeds:
            if isinstance(feed, EntryFeed):
                for entry in self.mesh.entries[max(0, feed.next_index - 1) :]:
                    feed.on_event(entry.head, entry.payload)

    # Requests, services, streams

    async def call(
        self,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        raise HubError(f"the fake hub has no method {method}", code="invalid")

    async def offer(
        self, service: str, handler: Handler, *, peers: bool = False, streams: StreamHandler | None = None
    ) -> None:
        self._check()
        self.agent.offers[service] = (self, handler, peers, streams)

    async def call_service(
        self,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        self._check()
        request = Request(service, method, _copy(head), bytes(payload), None, self.name, timeout)
        return await _ask(self._find(self.agent, service, None)[1](request), timeout)

    async def request(
        self,
        peer: str,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        self._check()
        target = self._reach(peer)
        local = target is self.agent
        request = Request(
            service, method, _copy(head), bytes(payload), None if local else self.peer_id,
            self.name if local else None, timeout,
        )  # fmt: skip
        return await _ask(self._find(target, service, None if local else method)[1](request), timeout)

    async def open_stream(
        self,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        *,
        peer: str | None = None,
        timeout: float = 10.0,
    ) -> ByteStream:
        self._check()
        target = self.agent if peer is None else self._reach(peer)
        local = target is self.agent
        owner, _, _, handler = self._find(target, service, None if local else method)
        if handler is None:
            raise error_from("invalid", f"{service} takes no streams")
        request = Request(
            service, method, _copy(head), b"", None if local else self.peer_id,
            self.name if local else None, timeout,
        )  # fmt: skip
        ours, theirs = _Wire(), _Wire()
        near = ByteStream(1, ours, lambda _: None)
        far = ByteStream(1, theirs, lambda _: None)
        ours.far, theirs.far = far, near
        owner._server.spawn(owner._server.run_stream(handler, request, far))
        return near

    def _reach(self, peer: str) -> FakeAgent:
        target = self.mesh.by_peer(peer)
        if target is None or not self.mesh.reaches(peer, self.peer_id):
            raise HubUnavailable(f"unavailable: peer {peer} is not connected")
        return target

    @staticmethod
    def _find(
        agent: FakeAgent, service: str, asked_by_peer: str | None
    ) -> tuple[FakeHub, Handler, bool, StreamHandler | None]:
        """The offer of a service; `asked_by_peer` is the method that a peer asks for."""
        offer = agent.offers.get(service)
        rule = SERVICES.get(service)
        if asked_by_peer is not None and rule is not None and asked_by_peer not in rule.peers:
            raise error_from("not_permitted", f"{service}.{asked_by_peer} is for this agent's own processes")
        if offer is None or (asked_by_peer is not None and not offer[2]):
            raise HubUnavailable(f"unavailable: nobody offers {service}")
        return offer

    @classmethod
    async def connect(cls, path: Any, name: str, *, retry_for: float | None = None) -> Self:
        raise TypeError("a fake hub is made by FakeMesh.hub(agent, process)")


class _Wire:
    """Carries one side's frames to the other side's stream, one turn of the loop later."""

    def __init__(self) -> None:
        self.far: ByteStream | None = None

    def send(self, op: int, ident: int, head: Mapping[str, Any] | None = None, payload: bytes = b"") -> None:
        far = self.far
        assert far is not None
        asyncio.get_running_loop().call_soon(far.on_frame, op, orjson.dumps(head) if head else b"", payload)

    async def drained(self) -> None:
        """Never full."""


def _copy(head: Mapping[str, Any] | None) -> dict[str, Any]:
    copied: dict[str, Any] = orjson.loads(orjson.dumps(dict(head or {})))
    return copied


async def _ask(work: Awaitable[Reply | dict[str, Any] | None], timeout: float) -> Reply:
    try:
        async with asyncio.timeout(timeout):
            answer = await work
    except TimeoutError:
        raise HubTimeout(f"no answer within {timeout:g} s") from None
    except HubError:
        raise
    except Exception as error:
        raise error_from("internal", f"{type(error).__name__}: {error}") from error
    return answer if isinstance(answer, Reply) else Reply(_copy(answer))

"""What crosses the hub's client: replies, requests, messages, entries. Plain values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from chorus.config.mesh import MeshSettings

if TYPE_CHECKING:
    from chorus.hub.streams import ByteStream

Head = Mapping[str, Any]


# Made for each call, as requests are, and so not frozen: that would set every field by a call of its own.
@dataclass(slots=True)
class Reply:
    """The answer to a call: a JSON head and untouched payload bytes."""

    head: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(slots=True)
class Request:
    """What a handler of an offered service is given. `peer` is None when a process of this agent asks."""

    service: str
    method: str
    head: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    peer: str | None = None
    process: str | None = None
    timeout: float = 10.0


Handler = Callable[[Request], Awaitable["Reply | dict[str, Any] | None"]]
StreamHandler = Callable[[Request, "ByteStream"], Awaitable[None]]


@dataclass(slots=True)
class Message:
    """A message on a topic.

    `sender` is a peer id, or a process name on `local/` topics. `gap` counts the messages dropped right
    before this one; -1 means that the connection was lost in between and nobody can count them.
    """

    topic: str
    type: str
    sender: str
    timestamp_ms: int
    id: str
    sequence: int
    gap: int
    raw: bytes
    _data: Any = field(default=..., repr=False, compare=False)

    @property
    def envelope(self) -> dict[str, Any]:
        """The whole envelope; empty on `local/` topics."""
        if self.topic.startswith("local/"):
            return {}
        envelope: dict[str, Any] = orjson.loads(self.raw)
        return envelope

    @property
    def data(self) -> Any:
        """The `data` of the envelope, or the published JSON of a `local/` topic; None if not JSON."""
        if self._data is ...:
            if self.topic.startswith("local/"):
                try:
                    self._data = orjson.loads(self.raw)
                except orjson.JSONDecodeError:
                    self._data = None
            else:
                self._data = self.envelope.get("data")
        return self._data


@dataclass(frozen=True, slots=True)
class Proposed:
    """Where a proposed entry stands in the log."""

    index: int
    id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry. `type` is "" for an empty one and "invalid" (see `reason`) for one to skip."""

    index: int
    term: int
    stamp_ms: int
    type: str
    id: str
    author: str
    seen: int
    body: Any
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DhtValue:
    """A value that was found, its signature and hash checked, opened with this agent's keys."""

    author: str
    role: str | None
    created_at: int
    version: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the consensus group, as the core sees it."""

    raft_id: int
    peer: str
    voter: bool
    match: int = 0
    recent: bool = False


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """The consensus machine of this agent now. `role` is follower, candidate, leader, learner or none."""

    mesh: str | None
    raft_id: int
    term: int
    role: str
    leader: str | None
    commit: int
    last: int
    members: tuple[Member, ...] = ()
    settings: MeshSettings | None = None
    founding: dict[str, Any] | None = None
    # Why this agent's identity is to be replaced; "" when it is not.
    lost: str = ""
    # Why this agent is a member no more, as its own log says; "" while it is one, or was never removed.
    removed: str = ""
    # The term of the entry at `last`.
    last_term: int = 0
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_head(cls, head: dict[str, Any]) -> RaftStatus:
        """Reads the head of `raft.status`."""
        return cls(
            mesh=head.get("mesh") or None,
            raft_id=int(head.get("raft_id") or 0),
            term=int(head.get("term") or 0),
            role=str(head.get("role") or "none"),
            leader=head.get("leader") or None,
            commit=int(head.get("commit") or 0),
            last=int(head.get("last") or 0),
            members=tuple(
                Member(
                    raft_id=int(member["raft_id"]),
                    peer=str(member["peer"]),
                    voter=bool(member["voter"]),
                    match=int(member.get("match") or 0),
                    recent=bool(member.get("recent")),
                )
                for member in head.get("members") or ()
            ),
            settings=MeshSettings.of_entry(head.get("settings") or {}) if head.get("mesh") else None,
            founding=head.get("founding") or None,
            lost=str(head.get("lost") or ""),
            removed=str(head.get("removed") or ""),
            last_term=int(head.get("last_term") or 0),
            raw=head,
        )


@dataclass(frozen=True, slots=True)
class Added:
    """What a joiner needs to adopt the mesh: its raft id and the founding snapshot (base64)."""

    raft_id: int
    index: int
    founding: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Entries of the log in the order asked for, each with its number `seq`; it may be short before the end.

    `next` is where the page after this one starts.
    """

    entries: list[dict[str, Any]]
    next: int
    length: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature of this agent's key, both base64."""

    signature: str
    public_key: str

"""What connected peers say of their mesh, believed only of those that hold the cluster secret.

Whom to join, and what to do about a second mesh, is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from chorus.config.secret import derive_join_key
from chorus.election.proof import Handshake, fresh, same
from chorus.hub import Hub, HubInvalid, HubTampered
from chorus.process import Process
from chorus.wire.schema import Schema

PEER_SERVICE: Final = "mesh"
ASK_TIMEOUT_S: Final = 2.0
# A peer without the secret is asked again after this: the program behind its key may have changed.
STRANGER_S: Final = 30.0

# A mesh recovered more often than that names those before it no more.
RECOVERS_MAX: Final = 64

MeshId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
PeerId = Annotated[str, Field(min_length=1, max_length=128)]
RaftId = Annotated[int, Field(ge=1, le=2**53)]
Index = Annotated[int, Field(ge=0, le=2**53)]
Proof = Annotated[str, Field(max_length=64)]


SaidT = TypeVar("SaidT", bound="Said")


class Said(Schema):
    """An answer of a peer. Fields that this version does not know are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Info(Said):
    """`mesh.info`: the peer's mesh. The defaults stand for what a peer of an earlier release does not say.

    `lone`: the mesh has only ever had this member; `recovers`: the meshes that it goes on from, the newest
    first; `leader`: it has one; `accepting`: it takes agents in.
    """

    mesh: MeshId | None
    lone: bool = False
    recovers: Annotated[tuple[MeshId, ...], Field(max_length=RECOVERS_MAX, strict=False)] = ()
    leader: bool = True
    accepting: bool = True


class Standing(Said):
    """`mesh.standing`: whether the mesh that both are in has removed the asking agent for good."""

    mesh: MeshId | None
    removed: bool
    proof: Proof


class Last(Said):
    """`mesh.last`: how far the member's log goes. `term` is that of its last entry."""

    mesh: MeshId | None
    last: Index
    term: Index
    applied: Index


class Challenged(Said):
    """`mesh.challenge`: the member's own proof, and a challenge or where to get one."""

    mesh: MeshId | None
    proof: Proof
    challenge: Proof | None = None
    leader: PeerId | None = None
    addrs: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=64)] = Field(
        default_factory=list
    )


class Peers:
    """Asks peers, and remembers who has proven to hold the cluster secret and who could not."""

    def __init__(self, process: Process, hub: Hub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub, self._log, self._clock = hub, process.log, clock
        self.key = derive_join_key(process.settings.cluster_secret.get_secret_value())
        self._holders: set[str] = set()
        self._strangers: dict[str, float] = {}

    def is_holder(self, peer: str) -> bool:
        """Whether the peer has proven that it holds the secret, since it was connected."""
        return peer in self._holders

    def is_stranger(self, peer: str) -> bool:
        """Whether the peer was asked for a proof lately and had none."""
        return self._clock() < self._strangers.get(peer, 0.0)

    def forget_all_but(self, connected: Iterable[str]) -> None:
        """Keeps what is known of these peers alone."""
        kept = set(connected)
        self._holders &= kept
        self._strangers = {peer: until for peer, until in self._strangers.items() if peer in kept}

    async def info(self, peer: str) -> Info:
        """What the peer says of its mesh. Raises HubError, and HubTampered for a stranger."""
        if peer not in self._holders:
            await self.challenge(peer)
        reply = await self._hub.request(peer, PEER_SERVICE, "info", timeout=ASK_TIMEOUT_S)
        return read(Info, reply.head)

    async def standing(self, peer: str, mesh: str, raft_id: int) -> Standing:
        """Whether the peer's mesh has removed this agent, member `raft_id` of `mesh`; a proof all the same.

        Raises HubError, and HubTampered when the peer proves nothing.
        """
        nonce = fresh()
        head = {"mesh": mesh, "raft_id": raft_id, "nonce": nonce}
        with self._believing(peer):
            reply = await self._hub.request(peer, PEER_SERVICE, "standing", head, timeout=ASK_TIMEOUT_S)
            said = read(Standing, reply.head)
            shown = Handshake(said.mesh or "", peer, self._hub.peer_id, nonce)
            if not same(said.proof, shown.of_standing(self.key, raft_id, said.removed)):
                raise HubTampered(f"{peer} does not prove that it holds the cluster secret")
        return said

    async def last(self, peer: str) -> Last:
        """How far the log of a member of this agent's mesh goes. Raises HubError."""
        reply = await self._hub.request(peer, PEER_SERVICE, "last", timeout=ASK_TIMEOUT_S)
        return read(Last, reply.head)

    async def challenge(self, peer: str) -> tuple[Challenged, Handshake]:
        """Asks for a proof and for a challenge. Raises HubTampered when the peer proves nothing."""
        nonce = fresh()
        with self._believing(peer):
            reply = await self._hub.request(
                peer, PEER_SERVICE, "challenge", {"nonce": nonce}, timeout=ASK_TIMEOUT_S
            )
            said = read(Challenged, reply.head)
            shown = Handshake(said.mesh or "", peer, self._hub.peer_id, nonce)
            if not same(said.proof, shown.of_holder(self.key)):
                raise HubTampered(f"{peer} does not prove that it holds the cluster secret")
        return said, Handshake(said.mesh or "", peer, self._hub.peer_id, nonce, said.challenge or "")

    @contextmanager
    def _believing(self, peer: str) -> Iterator[None]:
        """Remembers what came of asking for a proof."""
        try:
            yield
        except (HubInvalid, HubTampered) as error:
            self._holders.discard(peer)
            self._strangers[peer] = self._clock() + STRANGER_S
            self._log.debug("a peer is not of this cluster", peer=peer, reason=error.message)
            raise HubTampered(error.message) from None
        self._holders.add(peer)
        self._strangers.pop(peer, None)


def read(kind: type[SaidT], head: dict[str, Any]) -> SaidT:
    """The answer in its form; raises HubInvalid for anything else."""
    try:
        return kind.model_validate(head)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) or "answer" for item in error.errors()}))
        raise HubInvalid(f"the peer's answer does not have the form expected of it: {fields}") from None

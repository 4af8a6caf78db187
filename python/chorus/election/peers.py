"""What connected peers say of their mesh, believed only of those that hold the cluster secret.

Whom to join, and what to do about a second mesh, is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus.config.secret import derive_join_key
from chorus.election.proof import Handshake, fresh, same
from chorus.hub import Hub, HubInvalid, HubTampered
from chorus.process import Process

PEER_SERVICE: Final = "mesh"
ASK_TIMEOUT_S: Final = 2.0
# A peer without the secret is asked again after this: the program behind its key may have changed.
STRANGER_S: Final = 30.0

MeshId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
PeerId = Annotated[str, Field(min_length=1, max_length=128)]


SaidT = TypeVar("SaidT", bound="Said")


class Said(BaseModel):
    """An answer of a peer. Fields that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Info(Said):
    """`mesh.info`."""

    mesh: MeshId | None


class Challenged(Said):
    """`mesh.challenge`: the member's own proof, and a challenge or where to get one."""

    mesh: MeshId | None
    proof: Annotated[str, Field(max_length=64)]
    challenge: Annotated[str, Field(max_length=64)] | None = None
    leader: PeerId | None = None
    addrs: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=64)] = []


class Peers:
    """Asks peers, and remembers who has proven to hold the cluster secret and who could not."""

    def __init__(self, process: Process, hub: Hub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub, self._log, self._clock = hub, process.log, clock
        self.key = derive_join_key(process.settings.cluster_secret.get_secret_value())
        self._holders: set[str] = set()
        self._strangers: dict[str, float] = {}

    def is_stranger(self, peer: str) -> bool:
        """Whether the peer was asked for a proof lately and had none."""
        return self._clock() < self._strangers.get(peer, 0.0)

    def forget_all_but(self, connected: Iterable[str]) -> None:
        """Keeps what is known of these peers alone."""
        kept = set(connected)
        self._holders &= kept
        self._strangers = {peer: until for peer, until in self._strangers.items() if peer in kept}

    async def mesh_of(self, peer: str) -> str | None:
        """The mesh that the peer is in, None for none. Raises HubError, and HubTampered for a stranger."""
        if peer not in self._holders:
            challenged, _ = await self.challenge(peer)
            return challenged.mesh
        reply = await self._hub.request(peer, PEER_SERVICE, "info", timeout=ASK_TIMEOUT_S)
        return read(Info, reply.head).mesh

    async def challenge(self, peer: str) -> tuple[Challenged, Handshake]:
        """Asks for a proof and for a challenge. Raises HubTampered when the peer proves nothing."""
        nonce = fresh()
        try:
            reply = await self._hub.request(
                peer, PEER_SERVICE, "challenge", {"nonce": nonce}, timeout=ASK_TIMEOUT_S
            )
            said = read(Challenged, reply.head)
            shown = Handshake(said.mesh or "", peer, self._hub.peer_id, nonce)
            if not same(said.proof, shown.of_holder(self.key)):
                raise HubTampered(f"{peer} does not prove that it holds the cluster secret")
        except (HubInvalid, HubTampered) as error:
            self._holders.discard(peer)
            self._strangers[peer] = self._clock() + STRANGER_S
            self._log.debug("a peer is not of this cluster", peer=peer, reason=error.message)
            raise HubTampered(error.message) from None
        self._holders.add(peer)
        self._strangers.pop(peer, None)
        return said, Handshake(said.mesh or "", peer, self._hub.peer_id, nonce, said.challenge or "")


def read(kind: type[SaidT], head: dict[str, Any]) -> SaidT:
    """The answer in its form; raises HubInvalid for anything else."""
    try:
        return kind.model_validate(head)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) or "answer" for item in error.errors()}))
        raise HubInvalid(f"the peer's answer does not have the form expected of it: {fields}") from None

"""When this agent leaves its mesh for another one: decided from what is known of its own and of those it
meets. Pure.

A mesh is *lone* when it has only ever had one member: it founded itself before it met the others, and joins
the first other mesh by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from chorus.config import MeshSettings
from chorus.process.departure import Departure

# A mesh without a leader for so long, in election timeouts, will not have one at once.
LEADERLESS_ELECTION_TIMEOUTS: Final = 2
# After that, and for so long: nobody of the own mesh is there, and somebody of another one is.
REJOIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Own:
    """This agent's own mesh. Spans are seconds without a break, 0 when it is not so.

    `carrying`: entries from an earlier mesh are still being brought in; `removed`: why this agent is no
    member any more, "" while it is; `alone_s`: without a leader, and no connected peer is of this mesh.
    """

    mesh: str
    lone: bool = False
    carrying: bool = False
    removed: str = ""
    leaderless_s: float = 0.0
    alone_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Other:
    """Another mesh, as its members that are connected say; `recovers` are the meshes that it goes on from.

    `leader`: it has one; `accepting`: it takes agents in; `met_s`: met for so long without a break.
    """

    mesh: str
    lone: bool = False
    leader: bool = True
    accepting: bool = True
    recovers: frozenset[str] = frozenset()
    met_s: float = 0.0

    @property
    def takes(self) -> bool:
        """Whether it would take this agent in now. A lone mesh leads itself."""
        return self.accepting and (self.leader or self.lone)


@dataclass(frozen=True, slots=True)
class Patience:
    """Spans in seconds after which a mesh without a leader, or without anybody, counts as that."""

    leaderless_s: float
    alone_s: float = REJOIN_S

    @classmethod
    def of(cls, settings: MeshSettings) -> Self:
        """What the mesh's settings make of it."""
        return cls(LEADERLESS_ELECTION_TIMEOUTS * settings.election_timeout_s)


def departure(own: Own, others: Iterable[Other], patience: Patience, *, rejoin: bool) -> Departure | None:
    """Why this agent leaves its mesh now, and for which; None while it stays. `rejoin`: CHORUS_REJOIN."""
    met = _preferred(others)
    if own.removed:
        return Departure(kind="removed", mesh=own.mesh, why=own.removed)
    if own.leaderless_s >= patience.leaderless_s and (heir := _recovering(own.mesh, met)) is not None:
        return _to(heir, own)
    if own.lone and not own.carrying:
        for other in met:
            # Of two lone ones the younger goes: ids of meshes grow with time.
            if other.takes and (not other.lone or other.mesh < own.mesh):
                why = f"mesh {own.mesh} has only ever had this agent, and joins mesh {other.mesh}"
                return Departure(kind="merge", mesh=own.mesh, to=other.mesh, why=why)
    if rejoin and own.alone_s >= patience.alone_s:
        for other in met:
            if other.takes and other.met_s >= patience.alone_s:
                return _to(other, own)
    return None


def by_hand(own: Own, others: Iterable[Other]) -> Departure | str:
    """Where this agent goes when a person has it leave its mesh; why not, in a sentence, when it cannot."""
    met = _preferred(others)
    if not met:
        return f"no connected peer is in another mesh than this agent's own, {own.mesh}"
    if (heir := _recovering(own.mesh, met)) is not None:
        return _to(heir, own)
    if own.lone:
        return f"this agent joins mesh {met[0].mesh} by itself and takes its tasks along; it takes a moment"
    for other in met:
        if other.takes and not (other.lone and own.leaderless_s == 0):
            return _to(other, own)
    if any(other.takes for other in met):
        return f"mesh {met[0].mesh} has only ever had one member: it joins this agent's mesh by itself"
    return f"mesh {met[0].mesh} has no leader or is being recovered, and takes nobody in now: try again soon"


def warnings(own: Own, others: Iterable[Other], patience: Patience, *, rejoin: bool) -> list[str]:
    """What people are told of the other meshes: a sentence for each, with what to do."""
    said = []
    for other in _preferred(others):
        both = f"this agent is in mesh {own.mesh} and meets mesh {other.mesh} with the same cluster secret"
        if own.mesh in other.recovers:
            if own.leaderless_s > 0:
                said.append(
                    f"{both}, which was recovered from its own: it joins that one by itself unless its own "
                    f"has a leader within {patience.leaderless_s:g} s"
                )
            else:
                said.append(
                    f"{both}, which was recovered from its own, although that has a leader: run chorusctl "
                    "members rejoin on each agent of the one that is to end; its tasks stay in replaced/"
                )
        elif own.lone or (other.lone and own.leaderless_s == 0):
            said.append(f"{both}; the one that has only ever had one member joins the other by itself")
        elif own.alone_s > 0:
            by_itself = f"it joins that one by itself within {patience.alone_s:g} s (CHORUS_REJOIN=true)"
            hand = "if its own mesh is gone, chorusctl members rejoin has it join that one"
            said.append(
                f"{both}; its own has no leader, and none of its members is connected: "
                f"{by_itself if rejoin else hand}; its tasks stay in replaced/"
            )
        elif own.leaderless_s > 0:
            said.append(f"{both}; its own has no leader now, which is to be seen to first")
        else:
            said.append(
                f"{both}; meshes of more than one member do not merge: run chorusctl members rejoin on each "
                "agent of the smaller one, whose tasks stay in replaced/, or give one of them a "
                "CHORUS_CLUSTER_SECRET of its own"
            )
    return said


def _preferred(others: Iterable[Other]) -> list[Other]:
    """Those of more than one member first, then the eldest."""
    return sorted(others, key=lambda other: (other.lone, other.mesh))


def _recovering(mesh: str, met: Iterable[Other]) -> Other | None:
    return next((other for other in met if mesh in other.recovers), None)


def _to(other: Other, own: Own) -> Departure:
    if own.mesh in other.recovers:
        why = f"mesh {own.mesh} was recovered as mesh {other.mesh}, which this agent joins"
        return Departure(kind="recovered", mesh=own.mesh, to=other.mesh, why=why)
    why = f"this agent leaves mesh {own.mesh} for mesh {other.mesh}; what it had there stays in replaced/"
    return Departure(kind="rejoin", mesh=own.mesh, to=other.mesh, why=why)


class Span:
    """For how long something has been so, without a break. Times are seconds of a clock passed in."""

    def __init__(self) -> None:
        self._since: float | None = None

    def see(self, so: bool, now: float) -> float:
        """The seconds until now; 0 when it is not so, and more than 0 as soon as it is."""
        if not so:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        return max(now - self._since, 1e-9)

"""Join a mesh, found one, or wait: decided from what the peers met so far have answered. Pure.

Agents that start together meet within the join wait; of those that know of no mesh the smallest peer id
founds, and the others join it. An answer counts only while it is fresh: who gave it may have founded since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# "None yet" says nothing about later than this.
FRESH_S = 1.0
# A peer that is connected and does not answer (its processes are starting) may be about to found: it is
# waited for, but not for ever.
SILENT_WAIT_S = 10.0
# And no longer than this in all, however many silent peers come one after the other.
SILENT_TOTAL_S = 30.0
# A mesh whose leader did not take us in is asked again after this.
JOIN_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Met:
    """A connected peer. `answered_at` is when its newest answer came; the rest is what it said then.

    `lone`: its mesh has only ever had one member; `accepting`: it takes agents in.
    """

    peer: str
    since: float
    answered_at: float | None = None
    mesh: str | None = None
    lone: bool = False
    accepting: bool = True


@dataclass(frozen=True, slots=True)
class Join:
    """Ask this peer to be taken in."""

    peer: str
    mesh: str


@dataclass(frozen=True, slots=True)
class Found:
    """Found a mesh of one."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Neither yet."""

    why: str


Step = Join | Found | Wait


def next_step(me: str, now: float, started: float, wait_s: float, met: Iterable[Met], left: str = "") -> Step:
    """What an agent without a mesh does now. `wait_s` is the join wait and the agent's stagger; `left` the
    mesh that it has just left for another one, "" for none.
    """
    peers = sorted(met, key=lambda peer: peer.peer)
    # A lone mesh joins a larger or an older one by itself: who joins the one that stays need not move again.
    meshes = sorted(
        (peer.lone, peer.mesh, peer.peer)
        for peer in peers
        if peer.mesh and peer.mesh != left and peer.accepting
    )
    if meshes:
        _, mesh, at = meshes[0]
        return Join(at, mesh)
    for peer in peers:
        if peer.mesh is not None and peer.mesh == left:
            return Wait(f"no mesh is met but {left}, which this agent has left for another one")
        if peer.mesh is not None:
            return Wait(
                f"mesh {peer.mesh} takes nobody in now, says {peer.peer}: it changes, or is recovered"
            )
    if now - started < wait_s:
        return Wait("looking for a mesh")
    patient = now - started < wait_s + SILENT_TOTAL_S
    for peer in peers:
        fresh = peer.answered_at is not None and now - peer.answered_at <= FRESH_S
        if not fresh and peer.answered_at is None and patient and now - peer.since < SILENT_WAIT_S:
            return Wait(f"{peer.peer} has not said yet whether it has a mesh")
        if not fresh and peer.answered_at is not None and now - peer.answered_at < SILENT_WAIT_S:
            return Wait(f"{peer.peer} had no mesh and has not answered since")
        if fresh and peer.peer < me:
            return Wait(f"{peer.peer} has no mesh either and the smaller id: it founds")
    return Found()

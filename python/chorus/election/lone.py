"""What an agent says of its own mesh: whether it is lone, and which meshes it goes on from."""

from __future__ import annotations

from chorus.hub import RaftStatus
from chorus.table.reader import TableReader


def recovers(status: RaftStatus) -> tuple[str, ...]:
    """The meshes that this agent's mesh goes on from, the newest first; none for one that began anew."""
    said = (status.founding or {}).get("recovers")
    return tuple(map(str, said)) if isinstance(said, list) else ()


def is_lone(status: RaftStatus, reader: TableReader, peer: str) -> bool:
    """Whether the mesh has only ever had this member, `peer`, and goes on from no other. Sure, or no."""
    # Who has just joined has the log of a time when another one was alone there.
    if status.mesh is None or [member.peer for member in status.members] != [peer] or recovers(status):
        return False
    mesh = reader.mesh()
    # A table that is behind its log, or made anew from it, does not know of earlier members yet.
    known = mesh is not None and mesh.mesh == status.mesh and reader.applied() >= status.commit
    return known and reader.ever_listed() == 1

"""When the leader raises the version of the table: as soon as every listed member knows the next. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chorus.table.members import TABLE_VERSION
from chorus.table.records import Member, Mesh


@dataclass(frozen=True, slots=True)
class Raise:
    """The version to raise the table to, or the members that hold it back."""

    version: int
    held_back_by: tuple[str, ...] = ()

    @property
    def due(self) -> bool:
        """Whether all know it."""
        return not self.held_back_by


def next_version(mesh: Mesh, members: Iterable[Member], newest: int = TABLE_VERSION) -> Raise | None:
    """What is next for the table; None when it has the newest version that this release knows.

    A member that has just joined knows the first version alone, until it says otherwise.
    """
    version = mesh.version + 1
    if version > newest:
        return None
    behind = (member.agent_id or member.peer for member in members if member.table_version < version)
    return Raise(version, tuple(sorted(behind)))

"""When the leader raises the version of the table: as soon as every listed member knows the next; and what
the table does not take before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chorus.table.entry_types import SINCE
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


def no_goals_yet(mesh: Mesh | None, members: Iterable[Member]) -> str | None:
    """Why the table takes no goals yet, naming the releases that hold it back; None when it takes them."""
    version = SINCE["goal"]
    if mesh is not None and mesh.version >= version:
        return None
    behind = sorted(
        f"{member.agent_id or member.peer} ({member.version or 'no release said yet'})"
        for member in members
        if member.table_version < version
    )
    if behind:
        return (
            f"tasks without commands are taken from version {version} of the table on, which every member"
            f" has to know first; these run an older release: {', '.join(behind)}"
        )
    return (
        f"the table is about to be raised to version {version}, from which on it takes tasks without commands"
    )

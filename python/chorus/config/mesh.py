"""A mesh's settings: one typed object, made by its founder from its own settings, stored in the founding
entry and read from there by every member. A member's own settings of these names count for nothing after
joining.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Self

from chorus.config.groups.mesh import TimingSettings

# As long as clocks and timers count without trouble.
SPAN_MAX_MS: Final = 10 * 366 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """What all members of a mesh go by; field names are those of the founding entry.

    The defaults hold for what a founding entry leaves out, and are the same on every member.
    """

    voters: int = 5
    heartbeat_ms: int = 5_000
    election_timeout_ms: int = 15_000
    lease_ms: int = 30_000
    absence_ms: int = 600_000
    leaderless: Literal["run", "wait"] = "run"

    @classmethod
    def of_founder(cls, settings: TimingSettings) -> Self:
        """What a mesh that this agent founds will have; until it is in a mesh, what it goes by itself."""
        return cls(
            voters=settings.voters,
            heartbeat_ms=round(settings.heartbeat_s * 1000),
            election_timeout_ms=round(settings.election_timeout_s * 1000),
            lease_ms=round(settings.task_lease_s * 1000),
            absence_ms=round(settings.member_absence_s * 1000),
            leaderless=settings.leaderless,
        )

    @classmethod
    def of_entry(cls, said: Mapping[str, Any]) -> Self:
        """What the founding entry says. Total: a value that cannot be used counts as left out, on every
        member alike; names that are not known are passed over.
        """
        known = {
            field.name: said[field.name]
            for field in fields(cls)
            if field.name in said and _fits(field.name, said[field.name])
        }
        if "heartbeat_ms" not in known and "election_timeout_ms" in known:
            # As the core has it: three heartbeats fit into the timeout.
            known["heartbeat_ms"] = max(1, min(cls().heartbeat_ms, known["election_timeout_ms"] // 3))
        return cls(**known)

    def to_entry(self) -> dict[str, Any]:
        """The JSON object of the founding entry."""
        return asdict(self)

    @property
    def heartbeat_s(self) -> float:
        """How often a leader is heard."""
        return self.heartbeat_ms / 1000

    @property
    def election_timeout_s(self) -> float:
        """Silence after which members stand for election."""
        return self.election_timeout_ms / 1000

    @property
    def absence_s(self) -> float:
        """How long a member may be away before it is removed."""
        return self.absence_ms / 1000

    @property
    def lease_s(self) -> float:
        """How long an attempt runs on without an acknowledged renewal."""
        return self.lease_ms / 1000


def _fits(name: str, value: object) -> bool:
    if name == "leaderless":
        return value in ("run", "wait")
    return type(value) is int and 1 <= value <= SPAN_MAX_MS

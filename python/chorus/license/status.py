"""What the parent says of the licence to the agent's other processes: `license.json` in the run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chorus.config.files import write_private


@dataclass(frozen=True, slots=True)
class LicenceStatus:
    """State and reason (labels), the reason in words, and counts since the agent started.

    `checked` is the time of the last successful check, `until` that at which the grace ends: seconds since
    the epoch, None where there is none. `failures` counts checks that failed, by reason. `limits` are those
    of the last token, by the names of its claims.
    """

    state: str
    reason: str = ""
    detail: str = ""
    checked: float | None = None
    until: float | None = None
    checks: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the agent may run."""
        return self.state in ("valid", "grace")


def save(path: Path, status: LicenceStatus) -> None:
    """Replaces the file in one step. Raises OSError."""
    write_private(path, json.dumps(asdict(status)))


def load(path: Path) -> LicenceStatus | None:
    """What the parent said last; None where it said nothing."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return LicenceStatus(**content)
    except (OSError, ValueError, TypeError):
        return None

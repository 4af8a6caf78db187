"""What the doctor found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. One that is not needed does not make the doctor fail."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True

"""The check of a role keys file at the start. Its forms, and what it is for, are the core's."""

from __future__ import annotations

from pathlib import Path

# The check needs no secret: any bytes do.
_NO_SECRET = bytes(32)


def role_keys_problem(path: Path, role: str) -> str:
    """What is wrong with the file for an agent of that role, and the remedy; empty when nothing is."""
    # Only agents with such a file wait for the core to load.
    from chorus._core import CoreError, RoleKeys

    try:
        RoleKeys(_NO_SECRET, role or None, file=path)
    except CoreError as error:
        return f"expected a private file with age keys; {error}"
    return ""

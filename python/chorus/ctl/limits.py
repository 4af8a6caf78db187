"""What a sandbox may use, as arguments ask for it."""

from __future__ import annotations

from argparse import Namespace
from typing import Any


def resources(arguments: Namespace) -> dict[str, Any]:
    """What was asked for; the mesh has defaults for the others, and bounds for all."""
    asked = {
        "cpus": arguments.cpus,
        "memory_mb": _megabytes(arguments.memory),
        "disk_mb": _megabytes(arguments.disk),
        "pids": arguments.pids,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _megabytes(size: int | None) -> int | None:
    return None if size is None else -(-size // (1024 * 1024))

"""What all processes of the agent share: how they start, log, measure, answer for their health and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chorus.process.assignments import Assignments
    from chorus.process.logs import Logger
    from chorus.process.runner import Health, Process, run

__all__ = ["Assignments", "Health", "Logger", "Process", "run"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the parent logs with this package and must not pay for uvloop and the hub client.
    if name == "Logger":
        from chorus.process.logs import Logger

        return Logger
    if name == "Assignments":
        from chorus.process.assignments import Assignments

        return Assignments
    if name in __all__:
        from chorus.process import runner

        return getattr(runner, name)
    raise AttributeError(name)

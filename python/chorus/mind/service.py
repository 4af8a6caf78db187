"""The mind process: puts its parts together, offers its service, starts and stops."""

from __future__ import annotations

from chorus.process import Process


async def main(process: Process) -> None:
    """The body of the process."""
    process.health.set(False, "no model has answered yet")
    await process.offer({})
    await process.stopping.wait()

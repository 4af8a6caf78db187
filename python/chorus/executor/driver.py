"""What goes on in an attempt's sandbox between its inputs and its end: the task's commands, or a goal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chorus.executor import workspace
from chorus.executor.backend import CommandEnd, EndedBy, Limits, Sandbox, SandboxGone
from chorus.executor.summary import Facts
from chorus.wire.task import TaskSubmission


@dataclass(frozen=True, slots=True)
class Job:
    """What to run and where its files lie."""

    task_id: str
    attempt: int
    task: TaskSubmission
    holders: tuple[str, ...]
    limits: Limits
    folder: Path

    @property
    def workdir(self) -> str:
        """Where the task's commands run."""
        return f"/workspace/{self.task.workdir}".rstrip("/")


@dataclass(slots=True)
class Work:
    """One attempt in its sandbox. The runner alone sets `stopped`, once, and `stop_asked` with it."""

    job: Job
    sandbox: Sandbox
    facts: Facts
    stop_asked: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: EndedBy | None = None
    # Files of the driver's own making that are kept beside the task's artifacts, by the names they get.
    made: list[tuple[str, Path]] = field(default_factory=list)

    def gone(self, error: SandboxGone) -> None:
        """The sandbox died from inside. Who was stopping it, or its memory, or its own commands?"""
        if self.stopped:
            self.facts.ended_by = self.stopped
        elif error.out_of_memory:
            self.facts.ended_by = "out_of_memory"
        else:
            self.facts.ended_by = "exit"
        self.facts.note = error.reason


class Driver(Protocol):
    """What drives an attempt."""

    async def drive(self, work: Work) -> None:
        """Works in the sandbox to the attempt's own end or until `work.stop_asked`, and fills the facts.

        Raises BackendUnavailable and SandboxLost, which are not the task's fault.
        """


class CommandDriver:
    """Runs the task's commands in order, up to the first that fails."""

    async def drive(self, work: Work) -> None:
        job, facts = work.job, work.facts
        stdin = workspace.STDIN_PATH if job.task.stdin or job.task.stdin_sha256 else "/dev/null"
        for number, command in enumerate(job.task.commands, 1):
            if work.stopped:
                break
            begun = time.monotonic()
            try:
                end = await work.sandbox.run(number, command, workdir=job.workdir, stdin=stdin)
            except SandboxGone as error:
                _record(facts, command, CommandEnd(137, "exit", time.monotonic() - begun))
                work.gone(error)
                return
            _record(facts, command, end)
            if end.ended_by != "exit" or end.exit_code != 0:
                facts.ended_by, facts.note = end.ended_by, end.note
                return
        if work.stopped:
            facts.ended_by = work.stopped


def _record(facts: Facts, command: str, end: CommandEnd) -> None:
    facts.exit_code = end.exit_code
    facts.commands.append(
        {"command": command, "exit_code": end.exit_code, "duration_s": round(end.duration_s, 3)}
    )

"""Runs a task's inputs, commands and artifacts through one sandbox and returns the facts. Knows no mesh."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from chorus.archives.errors import ArchiveRefused
from chorus.executor import workspace
from chorus.executor.backend import (
    BackendUnavailable,
    CommandEnd,
    EndedBy,
    Limits,
    Sandbox,
    SandboxError,
    SandboxGone,
    SandboxLost,
    Usage,
)
from chorus.executor.journal import Journal
from chorus.executor.output import OutputGate
from chorus.executor.summary import Facts, outcome
from chorus.hub import HubError
from chorus.wire.task import TaskSubmission

_USAGE_EVENT_S = 5.0

T = TypeVar("T")


class InputsMissing(Exception):
    """A source or stdin could not be had from any holder: the mesh's fault, not the task's."""


class StopAsked(Exception):
    """The attempt is to end before this has."""


async def until_set(work: Coroutine[Any, Any, T], asked: asyncio.Event) -> T:
    """The work's result; raises StopAsked, and cancels the work, when the event is set before."""
    doing, stop = asyncio.ensure_future(work), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((doing, stop), return_when=asyncio.FIRST_COMPLETED)
        if asked.is_set():
            raise StopAsked
        return await doing
    finally:
        stop.cancel()
        if not doing.done():
            doing.cancel()
        elif not doing.cancelled():
            doing.exception()  # asked for or not


@dataclass(slots=True)
class Ran:
    """Everything an attempt left behind."""

    facts: Facts
    artifacts: workspace.Artifacts = field(default_factory=workspace.Artifacts)
    usage: Usage = field(default_factory=lambda: Usage(0.0, 0, 0, 0))
    # Whether it came to its own end, by its commands or its timeout: then nothing runs them again.
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What to run and where its files lie."""

    task_id: str
    attempt: int
    task: TaskSubmission
    holders: tuple[str, ...]
    limits: Limits
    folder: Path


class Runner:
    """One attempt's way through its sandbox. `stop` may be called at any moment, once or often; no command is
    sent after it.
    """

    def __init__(
        self,
        job: Job,
        sandbox: Sandbox,
        journal: Journal,
        gate: OutputGate,
        sources: workspace.Sources,
        clean: Callable[[str], str],
    ) -> None:
        self._job = job
        self._sandbox = sandbox
        self._journal = journal
        self._gate = gate
        self._sources = sources
        self._clean = clean
        self._stopped: EndedBy | None = None
        self._stop_asked = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._facts = Facts(
            total_commands=len(job.task.commands),
            timeout_s=job.task.timeout_s,
            protected=sandbox.protected,
        )
        self.command = 0

    def stop(self, why: EndedBy) -> None:
        """Kills what runs; the attempt then ends with `why`."""
        if self._stopped is None:
            self._stopped = why
            self._stop_asked.set()
            self._stopping = asyncio.get_running_loop().create_task(self._sandbox.stop(why))

    async def run(
        self,
        on_sample: Callable[[float, int], None] = lambda cpu, memory: None,
        on_settled: Callable[[Ran], Awaitable[None]] | None = None,
    ) -> Ran:
        """To the end. Raises BackendUnavailable, SandboxLost and InputsMissing, none of which is the task's
        fault, and only before the commands have ended.

        `on_settled` is awaited with what is known before the artifacts are collected, which may take long.
        """
        started = time.monotonic()
        sampling = asyncio.create_task(self._sample(on_sample))
        ran = Ran(self._facts)
        try:
            if await self._put_inputs():
                await self._run_commands()
            ran.settled = self._stopped in (None, "timeout")
            # Nothing of the task lives on while its use is counted and its files are read. And nothing that
            # breaks from here on may have its commands run again.
            with contextlib.suppress(Exception):
                await self._sandbox.stop(self._stopped or "exit")
            ran.usage = await self._usage()
            self._facts.running_s = time.monotonic() - started
            if self._job.task.artifacts and ran.settled:
                if on_settled is not None:
                    await on_settled(ran)
                scratch = self._job.folder / "scratch"
                ran.artifacts = await workspace.collect(
                    self._sandbox, self._job.task.artifacts, self._job.folder, scratch, self._clean
                )
        finally:
            sampling.cancel()
            try:
                self._gate.finish()
            except Exception as error:
                self._facts.note = f"the end of the output was lost: {error}"
            await asyncio.to_thread(shutil.rmtree, self._job.folder / "scratch", True)
        self._facts.output = self._gate.seen()
        self._facts.artifacts = len(ran.artifacts.items)
        self._facts.left_out = ran.artifacts.left_out
        if self._gate.failed is not None:
            self._facts.note = f"the agent's disk failed while the output was kept: {self._gate.failed}"
        return ran

    async def _usage(self) -> Usage:
        """What the task used. A session that its task has killed or stopped vouches for no success."""
        try:
            return await self._sandbox.usage()
        except SandboxGone as error:
            if outcome(self._facts) == "completed":
                self._facts.exit_code = self._facts.commands[-1]["exit_code"] = 137
                self._gone(error)
        except Exception:
            pass  # the commands had ended before
        return Usage(0.0, 0, 0, 0)

    async def _put_inputs(self) -> bool:
        try:
            source, stdin = await until_set(self._fetch_inputs(), self._stop_asked)
            if source is not None:
                await self._sandbox.put(source)
            if stdin is not None:
                await self._sandbox.put(stdin, "/tmp")
        except StopAsked:
            self._facts.ended_by = self._stopped or "exit"
            return False
        except HubError as error:
            raise InputsMissing(error.message) from error
        # A living sandbox that cannot unpack the source is the source's fault: tried again, it fails again.
        except (ArchiveRefused, SandboxError) as error:
            if isinstance(error, SandboxGone):
                self._gone(error)
                return False
            if isinstance(error, BackendUnavailable | SandboxLost):
                raise
            self._facts.ended_by = "disk" if workspace.no_space(error) else "exit"
            self._facts.note = f"the source was refused: {error}"
            return False
        return True

    async def _fetch_inputs(self) -> tuple[Path | None, Path | None]:
        job = self._job
        source = await self._sources.prepare(job.task, job.holders, job.limits.disk_bytes)
        return source, await self._sources.stdin(job.task, job.holders)

    async def _run_commands(self) -> None:
        job = self._job
        workdir = f"/workspace/{job.task.workdir}".rstrip("/")
        stdin = workspace.STDIN_PATH if job.task.stdin or job.task.stdin_sha256 else "/dev/null"
        timer = asyncio.get_running_loop().call_later(job.task.timeout_s, self.stop, "timeout")
        try:
            for number, command in enumerate(job.task.commands, 1):
                if self._stopped:
                    break
                self.command = number
                begun = time.monotonic()
                try:
                    end = await self._sandbox.run(number, command, workdir=workdir, stdin=stdin)
                except SandboxGone as error:
                    self._record(number, command, CommandEnd(137, "exit", time.monotonic() - begun))
                    self._gone(error)
                    return
                self._record(number, command, end)
                if end.ended_by != "exit" or end.exit_code != 0:
                    self._facts.ended_by, self._facts.note = end.ended_by, end.note
                    return
        finally:
            timer.cancel()
        if self._stopped:
            self._facts.ended_by = self._stopped

    def _record(self, number: int, command: str, end: CommandEnd) -> None:
        self._facts.exit_code = end.exit_code
        self._facts.commands.append(
            {"command": command, "exit_code": end.exit_code, "duration_s": round(end.duration_s, 3)}
        )

    def _gone(self, error: SandboxGone) -> None:
        """The sandbox died from inside. Who was stopping it, or its memory, or its own commands?"""
        if self._stopped:
            self._facts.ended_by = self._stopped
        elif error.out_of_memory:
            self._facts.ended_by = "out_of_memory"
        else:
            self._facts.ended_by = "exit"
        self._facts.note = error.reason

    async def _sample(self, on_sample: Callable[[float, int], None]) -> None:
        # The stats stream costs a thread and a second's wait; a task that is over before needs neither.
        await asyncio.sleep(1.0)
        told = 0.0
        async for sample in self._sandbox.samples():
            on_sample(sample.cpu_cores, sample.memory_bytes)
            if time.monotonic() - told >= _USAGE_EVENT_S:
                told = time.monotonic()
                self._journal.event(
                    "usage", {"cpu_cores": round(sample.cpu_cores, 3), "memory_bytes": sample.memory_bytes}
                )


def limits_for(task: TaskSubmission, ceiling: Limits) -> Limits:
    """What the task asks for, cut to what this agent allows."""
    asked = task.resources
    return Limits(
        cpus=min(asked.cpus, ceiling.cpus),
        memory_bytes=min(asked.memory_mb * 1024 * 1024, ceiling.memory_bytes),
        pids=min(asked.pids, ceiling.pids),
        disk_bytes=min(asked.disk_mb * 1024 * 1024, ceiling.disk_bytes),
    )


def usage_view(usage: Usage, facts: Facts) -> dict[str, Any]:
    """The `usage` of a result."""
    return {
        "cpu_s": round(usage.cpu_s, 3),
        "memory_peak_bytes": usage.memory_peak_bytes,
        "out_of_memory_kills": usage.out_of_memory_kills,
        "process_limit_hits": usage.process_limit_hits,
        "stdout_bytes": facts.output.get("stdout", 0),
        "stderr_bytes": facts.output.get("stderr", 0),
    }


def secret_values(values: Iterable[str]) -> list[bytes]:
    """Secrets as they show up in output."""
    return [value.encode("utf-8", "surrogatepass") for value in values if value]

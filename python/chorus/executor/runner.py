"""Puts a task's inputs into a sandbox, has its driver work there, and collects what is left."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from chorus.archives.errors import ArchiveRefused
from chorus.executor import workspace
from chorus.executor.backend import (
    BackendUnavailable,
    EndedBy,
    Sandbox,
    SandboxError,
    SandboxGone,
    SandboxLost,
    Usage,
)
from chorus.executor.driver import Driver, Job, Work
from chorus.executor.journal import Journal
from chorus.executor.output import OutputGate
from chorus.executor.stopping import StopAsked, until_set
from chorus.executor.summary import Facts, outcome
from chorus.hub import HubError

_USAGE_EVENT_S = 5.0


class InputsMissing(Exception):
    """A source or stdin could not be had from any holder: the mesh's fault, not the task's."""


@dataclass(slots=True)
class Ran:
    """Everything an attempt left behind."""

    facts: Facts
    artifacts: workspace.Artifacts = field(default_factory=workspace.Artifacts)
    usage: Usage = field(default_factory=lambda: Usage(0.0, 0, 0, 0))
    # Whether it came to its own end, by its commands or its timeout: then nothing runs them again.
    settled: bool = False


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
        sources: workspace.Inputs,
        clean: Callable[[str], str],
        driver: Driver,
    ) -> None:
        self._job = job
        self._sandbox = sandbox
        self._journal = journal
        self._gate = gate
        self._sources = sources
        self._clean = clean
        self._driver = driver
        self._stopping: asyncio.Task[None] | None = None
        self._facts = Facts(
            total_commands=len(job.task.commands),
            timeout_s=job.task.timeout_s,
            is_goal=job.task.is_goal,
            protected=sandbox.protected,
        )
        self._work = Work(job, sandbox, self._facts)

    def stop(self, why: EndedBy) -> None:
        """Kills what runs; the attempt then ends with `why`."""
        if self._work.stopped is None:
            self._work.stopped = why
            self._work.stop_asked.set()
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
                await self._drive()
            ran.settled = self._work.stopped in (None, "timeout")
            # Nothing of the task lives on while its use is counted and its files are read. And nothing that
            # breaks from here on may have its commands run again.
            with contextlib.suppress(Exception):
                await self._sandbox.stop(self._work.stopped or "exit")
            ran.usage = await self._usage()
            self._facts.running_s = time.monotonic() - started
            globs = self._job.task.artifacts if ran.settled else ()
            if globs or self._work.made:
                if on_settled is not None:
                    await on_settled(ran)
                scratch = self._job.folder / "scratch"
                ran.artifacts = await workspace.collect(
                    self._sandbox, globs, self._job.folder, scratch, self._clean, self._work.made
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

    async def _drive(self) -> None:
        timer = asyncio.get_running_loop().call_later(self._job.task.timeout_s, self.stop, "timeout")
        try:
            await self._driver.drive(self._work)
        finally:
            timer.cancel()

    async def _usage(self) -> Usage:
        """What the task used. A session that its task has killed or stopped vouches for no success."""
        try:
            return await self._sandbox.usage()
        except SandboxGone as error:
            # What decided about a goal happened in another sandbox.
            if outcome(self._facts) == "completed" and not self._facts.is_goal:
                self._facts.exit_code = self._facts.commands[-1]["exit_code"] = 137
                self._work.gone(error)
        except Exception:
            pass  # the commands had ended before
        return Usage(0.0, 0, 0, 0)

    async def _put_inputs(self) -> bool:
        task = self._job.task
        if not task.has_inputs and not task.is_goal:
            # Nothing is waited for, so that the first command is on its way before other work has its turn.
            return True
        try:
            source, stdin = await until_set(self._fetch_inputs(), self._work.stop_asked)
            if source is not None:
                await self._sandbox.put(source)
            if stdin is not None:
                await self._sandbox.put(stdin, "/tmp")
        except StopAsked:
            self._facts.ended_by = self._work.stopped or "exit"
            return False
        except HubError as error:
            raise InputsMissing(error.message) from error
        # A living sandbox that cannot unpack the source is the source's fault: tried again, it fails again.
        except (ArchiveRefused, SandboxError) as error:
            if isinstance(error, SandboxGone):
                self._work.gone(error)
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


def secret_values(values: Iterable[str]) -> list[bytes]:
    """Secrets as they show up in output."""
    return [value.encode("utf-8", "surrogatepass") for value in values if value]

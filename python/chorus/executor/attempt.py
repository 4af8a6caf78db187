"""One executor per attempt: claim, lease, sandbox, result. What follows the result's commit is the
publisher's.

awarded -> claim acknowledged -> running -> result in the outbox
                \\-> refused: nothing was run     \\-> given back: daemon, image or inputs gone, lease over
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import orjson

from chorus.executor import redaction, summary
from chorus.executor.backend import BackendUnavailable, EndedBy, ImageUnavailable, Sandbox, SandboxError
from chorus.executor.driver import CommandDriver, Driver, Job
from chorus.executor.earlier import in_time
from chorus.executor.goal.driver import GoalDriver, GoalParts, ModelMissing
from chorus.executor.goal.inputs import GoalInputs
from chorus.executor.goal.reading import read_inputs
from chorus.executor.images import ImageChoice, instead
from chorus.executor.journal import Journal, attempt_folder
from chorus.executor.lease import Lease, boottime
from chorus.executor.output import OutputGate
from chorus.executor.proposals import propose
from chorus.executor.result import Result
from chorus.executor.room import Room, limits_for
from chorus.executor.runner import InputsMissing, Ran, Runner, secret_values
from chorus.executor.stopping import StopAsked, until_set
from chorus.executor.summary import Facts
from chorus.executor.workspace import Inputs, Sources
from chorus.hub import HubError
from chorus.process.logs import Logger
from chorus.table.rows import TaskRow
from chorus.telemetry.operations import Operation
from chorus.wire.counts import counted
from chorus.wire.log import LogType
from chorus.wire.messages import COORDINATION
from chorus.wire.secrets import open_secrets
from chorus.wire.task import TaskSubmission

# `give_back` counts as no attempt: the model of a goal never began.
GivenBack = Literal["release", "give_back"]
# An attempt whose going back cannot be said within this is taken back by its lease anyway.
_RELEASE_WITHIN_S = 600.0
# Removing a container costs the machine as much processor time as a small task: it waits until the result is
# in the table, as a rule.
_REMOVAL_DELAY_S = 0.1


@dataclass(slots=True)
class Stop:
    """Why an attempt has to end before its commands do."""

    why: EndedBy
    reason: str


class Attempt:
    """Runs one awarded attempt. `stop` ends it from outside."""

    def __init__(
        self, room: Room, row: TaskRow, task: TaskSubmission, choice: ImageChoice, mesh: str
    ) -> None:
        self._room = room
        self._row = row
        self._task = task
        self._choice = choice
        self._mesh = mesh
        self.task_id = row.task_id
        self.number = row.attempt
        self._folder = attempt_folder(room.settings.paths.tasks, row.task_id, row.attempt)
        self.journal = Journal(self._folder, row.attempt)
        self._runner: Runner | None = None
        self._stop: Stop | None = None
        self._stop_asked = asyncio.Event()
        # Opened when the attempt is claimed.
        self._opened: dict[str, str] = {}
        # Of a goal: its inputs, read before its sandbox is chosen.
        self._inputs: GoalInputs | None = None
        self._redactor: redaction.StreamRedactor = room.redactor(())
        self._log: Logger = room.log.bind(task_id=row.task_id, attempt=row.attempt)
        self._result = Result(room, task, row, mesh, self._clean)
        self._started_entry: asyncio.Task[Any] | None = None
        self._earlier: asyncio.Task[list[dict[str, Any]]] | None = None
        self.cpu_cores = 0.0
        self.memory_bytes = 0

    def stop(self, why: EndedBy, reason: str) -> None:
        """Ends the attempt: `cancel` with a result, anything else by giving it back."""
        if self._stop is not None:
            return
        self._stop = Stop(why, reason)
        self._stop_asked.set()
        if self._runner is not None:
            self._runner.stop(why)

    @property
    def begun(self) -> bool:
        """Whether it has a sandbox; before, nothing is lost by giving it back."""
        return self._runner is not None

    async def run(self) -> None:
        """From the claim to the result's place in the outbox. Raises nothing."""
        keeping: asyncio.Task[None] | None = None
        remove_after_s = 0.0
        preparing = asyncio.create_task(self._acquire())
        try:
            sent = boottime()
            claimed = await self._claim()
            if claimed is not None:
                self._log.info("claim refused", reason=claimed)
                with contextlib.suppress(OSError):
                    self._state("released", claimed)
                self.journal.close()
                return
            keeping = asyncio.create_task(self._keep_lease(sent))
            self._follow()
            self._state("claimed", f"claimed by {self._room.settings.agent_id}")
            self._earlier = asyncio.create_task(self._ask_earlier())
            self._later(self._announce("task_claim", {}))
            self._later(
                self._log_entry("task_started", {"image": self._choice.image, "why": self._choice.why})
            )
            # The shield leaves the sandbox to `_dispose` when nobody waits for it any more. As a rule it is
            # there before the claim: then the first command is sent before other work has its turn.
            sandbox, pulling_s = await until_set(asyncio.shield(preparing), self._stop_asked)
            ran = await self._execute(sandbox, pulling_s)
            if self._stop is not None and self._stop.why != "cancel" and not ran.settled:
                await self._give_back(self._stop.reason)
                return
        except StopAsked:
            await self._stopped_early()
        except ModelMissing as missing:
            await self._give_back(str(missing), "give_back")
        except (
            BackendUnavailable,
            ImageUnavailable,
            InputsMissing,
            SandboxError,
            HubError,
        ) as error:
            if isinstance(error, BackendUnavailable):
                self._room.backend_lost(error.reason)
            await self._give_back(self._stop.reason if self._stop else str(error))
        except (OSError, sqlite3.Error) as error:
            await self._give_back(f"this agent's disk failed: {error}")
        except Exception as error:
            self._log.exception("the attempt broke")
            await self._give_back(f"the executor broke: {error}")
        else:
            # The commands have ended: from here on nothing gives the attempt back.
            self._operation.phase("publishing")
            await self._keep_result(ran, sandbox.image_digest, pulling_s)
            remove_after_s = _REMOVAL_DELAY_S
        finally:
            self._stop_asked.set()  # nobody waits for an image any more
            for task in (keeping, self._earlier):
                if task is not None:
                    task.cancel()
            self._room.spawn(self._dispose(preparing, remove_after_s))

    # ---- steps -----------------------------------------------------------------------------------

    async def _acquire(self) -> tuple[Sandbox, float]:
        """The sandbox, got ready while the claim is on its way; nothing of the task runs in it yet."""
        images = self._room.images
        if self._task.is_goal:
            reading = read_inputs(self._room, self._task, self._holders(), self._folder, self._choice)
            self._inputs, self._task, self._choice = await until_set(reading, self._stop_asked)
        while True:
            try:
                pulling_s = await until_set(images.ensure(self._choice.image), self._stop_asked)
                break
            except ImageUnavailable as error:
                # A pull that seemed to go well when the award was taken.
                following = instead(self._choice, error.reason)
                if following is None:
                    raise
                self._choice = following
        limits = limits_for(self._task, self._room.ceiling)
        return await self._room.backend.acquire(self._choice.image, limits, self._room.lease_s), pulling_s

    def _holders(self) -> tuple[str, ...]:
        return tuple(holder.peer for holder in self._room.table.held.holders(self.task_id))

    async def _claim(self) -> str | None:
        """None when the leader acknowledged the claim, else why not."""
        body = {"task_id": self.task_id, "attempt": self.number}
        outcome = await propose(self._room.hub, "claim", body, within_s=self._room.lease_s)
        if outcome is None:
            return "the claim was not acknowledged within a lease"
        return None if outcome.accepted else outcome.reason

    async def _ask_earlier(self) -> list[dict[str, Any]]:
        """Earlier decisions that may matter, which the attempt's story names."""
        found = await self._room.earlier.decisions(self.task_id)
        if found:
            text = f"{counted(len(found), 'earlier decision')} may matter"
            with contextlib.suppress(OSError, ValueError):
                self.journal.event("message", {"text": text, "context": found, "at": self._room.now()})
        return found

    async def _execute(self, sandbox: Sandbox, pulling_s: float) -> Ran:
        room = self._room
        try:
            self._opened = await open_secrets(room.hub, self._task.secrets)
        except ValueError as error:
            raise InputsMissing(str(error)) from None
        if self._opened:
            # Many large secrets have many forms, whose search takes a moment to build.
            self._redactor = await asyncio.to_thread(room.redactor, secret_values(self._opened.values()))
        job = Job(
            self.task_id,
            self.number,
            self._task,
            self._holders(),
            limits_for(self._task, room.ceiling),
            self._folder,
        )
        gate = OutputGate(self.journal, self._redactor)
        environment = {
            "CHORUS_TASK_ID": self.task_id,
            "CHORUS_ATTEMPT": str(self.number),
            **self._task.env,
            **self._opened,
        }
        driver: Driver = CommandDriver()
        sources: Inputs = Sources(room.hub, room.blobs, self._folder / "scratch")
        if self._inputs is not None:
            sources = self._inputs
            driver = GoalDriver(
                GoalParts(
                    room=room,
                    inputs=self._inputs,
                    choice=self._choice,
                    environment=environment,
                    journal=self.journal,
                    redactor=self._redactor,
                    sink=gate,
                    earlier=self._earlier,
                    announce=self._announce,
                )
            )
        runner = self._runner = Runner(job, sandbox, self.journal, gate, sources, self._clean, driver)
        await sandbox.begin({"name": f"chorus-{self.task_id}-{self.number}"}, environment, gate)
        self._operation.phase("running")
        self._state("running", f"in {self._choice.image}: {self._choice.why}")
        body = {
            "task_id": self.task_id,
            "attempt": self.number,
            "image": self._choice.image,
            "pulling_s": round(pulling_s, 3),
        }
        self._started_entry = asyncio.create_task(propose(room.hub, "started", body, within_s=room.lease_s))
        self._later(self._announce("task_progress", {"state": "running"}))
        if self._stop is not None:
            runner.stop(self._stop.why)

        async def settled(ran: Ran) -> None:
            await self._keep_outcome(ran, pulling_s)

        return await runner.run(self._on_sample, settled)

    async def _stopped_early(self) -> None:
        """The end of an attempt that was stopped before it had a sandbox."""
        assert self._stop is not None
        if self._stop.why == "cancel":
            facts = Facts(
                total_commands=len(self._task.commands), ended_by="cancel", is_goal=self._task.is_goal
            )
            await self._keep_result(Ran(facts), "", 0.0)
        else:
            await self._give_back(self._stop.reason)

    async def _keep_outcome(self, ran: Ran, pulling_s: float) -> None:
        """Into the outbox before the artifacts are collected: were the executor killed meanwhile, the
        commands would be run again for their files. Raises nothing.
        """
        self._operation.phase("publishing")
        why = "the executor was restarted while the artifacts were collected"
        body = summary.bare(self._result.outcome(ran, pulling_s), why)
        await self._to_disk(partial(self._room.outbox.put, self._result.item(body, self._choice, "")))

    async def _keep_result(self, ran: Ran, image_digest: str, pulling_s: float) -> None:
        """Into the outbox, and on its way. Raises nothing: how the commands ended is said, whatever else
        breaks.
        """
        outcome = self._result.outcome(ran, pulling_s)
        try:
            context = [] if self._earlier is None else await in_time(self._earlier)
            body = {**outcome, **await self._result.details(ran, context)}
            with contextlib.suppress(OSError):
                self.journal.event("usage", {**body["usage"], "total": True})
            item = self._result.item(body, self._choice, image_digest)
            await asyncio.to_thread(orjson.dumps, item.body)
        except Exception as error:
            self._log.exception("a result is kept without its details")
            item = self._result.item(summary.bare(outcome, str(error)), self._choice, image_digest)
        # Both on the disk before the result is offered; a result without its last output is still a result.
        await asyncio.gather(
            self._to_disk(self.journal.sync), self._to_disk(partial(self._room.outbox.put, item))
        )
        # A result that comes before the start would hide when the task ran.
        if self._started_entry is not None:
            await asyncio.wait((self._started_entry,), timeout=self._room.lease_s)
        self._room.publish(item, self.journal)

    async def _to_disk(self, write: Callable[[], None]) -> None:
        """Writes what it can. A result that the disk does not take is offered all the same: it lives as long
        as this process.
        """
        try:
            await asyncio.to_thread(write)
        except Exception as error:
            self._log.error("a result is not on the disk", error=str(error), kind=type(error).__name__)

    async def _give_back(self, reason: str, entry: GivenBack = "release") -> None:
        self._operation.end("released")
        reason = self._clean(reason)
        self._log.warning("giving the attempt back", reason=reason)
        # The file may be what failed, or closed already.
        with contextlib.suppress(OSError):
            self._state("released", reason)
        self.journal.close()
        said = {"task_id": self.task_id, "attempt": self.number, "mesh": self._mesh}
        self._later(self._room.tell("task_failed", {**said, "ended_by": "lost", "reason": reason}))
        self._later(self._log_entry("task_released", {"reason": reason[:2000]}))
        body = {"task_id": self.task_id, "attempt": self.number, "reason": reason[:2000]}
        self._room.spawn(propose(self._room.hub, entry, body, within_s=_RELEASE_WITHIN_S))

    async def _dispose(self, preparing: asyncio.Task[tuple[Sandbox, float]], after_s: float) -> None:
        """Removes the sandbox after so many seconds, also one that was still being made."""
        await asyncio.sleep(after_s)
        with contextlib.suppress(SandboxError, StopAsked, HubError, OSError):
            sandbox, _ = await preparing
            await sandbox.close()
        if self._inputs is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder / "scratch", True)

    async def _keep_lease(self, sent: float) -> None:
        room = self._room
        lease = Lease(room.hub, room.table, self.task_id, self.number, self._mesh, room.lease_s, sent)
        self.stop("lost", await lease.keep())

    def _follow(self) -> None:
        """BACKBEAT follows the attempt from its claim on; it has waited since it was submitted, or lost."""
        if not self._room.operations.on:
            return
        before = self._room.table.attempts(self.task_id) if self.number > 1 else []
        ended = [row.finished_at for row in before if row.attempt < self.number and row.finished_at]
        waited_s = time.time() - max(ended, default=self._row.created_at) / 1000
        operation = self._room.operations.begin(
            "task",
            f"{self.task_id}:{self.number}",
            "waiting",
            age_s=waited_s,
            task_id=self.task_id,
            attempt=self.number,
        )
        operation.phase("pulling")

    @property
    def _operation(self) -> Operation:
        return self._room.operation(self.task_id, self.number)

    # ---- telling ---------------------------------------------------------------------------------

    def _clean(self, text: str) -> str:
        return redaction.cut_text(text, self._redactor)

    def _state(self, state: str, reason: str) -> None:
        reason = self._clean(reason)
        self.journal.event("state", {"state": state, "reason": reason, "at": self._room.now()})

    def _on_sample(self, cpu_cores: float, memory_bytes: int) -> None:
        self.cpu_cores, self.memory_bytes = cpu_cores, memory_bytes
        self._room.sampled()

    async def _announce(self, type: str, data: dict[str, Any]) -> None:
        with contextlib.suppress(HubError):  # news only; the table has the facts
            named = {"task_id": self.task_id, "attempt": self.number, "mesh": self._mesh, **data}
            await self._room.hub.publish(COORDINATION, type, named)

    async def _log_entry(self, type: LogType, data: dict[str, Any]) -> None:
        with contextlib.suppress(HubError):
            named = {"task_id": self.task_id, "attempt": self.number, **data}
            await self._room.hub.log_append(type, named)

    def _later(self, work: Any) -> None:
        self._room.spawn(work)

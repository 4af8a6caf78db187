"""Drives an attempt at a goal: `setup`, then the loop in the process `mind`, which asks for each action,
until the run ends or is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chorus.executor import redaction
from chorus.executor.backend import OutputSink, Sandbox, SandboxError, SandboxGone
from chorus.executor.driver import Work
from chorus.executor.earlier import in_time
from chorus.executor.goal import start
from chorus.executor.goal.changed_files import ChangedFiles
from chorus.executor.goal.checking import Checking, run_command
from chorus.executor.goal.ending import leave
from chorus.executor.goal.inputs import Begun, GoalInputs
from chorus.executor.goal.progress import Progress
from chorus.executor.goal.run import End, GoalRun
from chorus.executor.goal.tools import Tools
from chorus.executor.goal.transcript import Transcript
from chorus.executor.images import ImageChoice
from chorus.executor.journal import Journal
from chorus.executor.redaction import StreamRedactor
from chorus.executor.room import Room
from chorus.executor.workspace import STDIN_PATH
from chorus.hub import HubError

# `mind` is asked to drive this often: once it is enough, but it may have been restarted since.
_DRIVE_EVERY_S: Final = 1.0
_DRIVE_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0
_TELL_TIMEOUT_S: Final = 5.0
# A process that is being restarted is back sooner; a goal that nobody has begun by then goes back.
_MIND_PATIENCE_S: Final = 60.0


class ModelMissing(Exception):
    """The model was away before the first step: the attempt goes back to the mesh, and counts as none."""


Announce = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GoalParts:
    """What a goal's driver works with. `earlier` are the decisions that may matter, which are being asked
    for; `announce` says something of the attempt to the mesh.
    """

    room: Room
    inputs: GoalInputs
    choice: ImageChoice
    environment: Mapping[str, str]
    journal: Journal
    redactor: StreamRedactor
    sink: OutputSink
    earlier: asyncio.Task[list[dict[str, Any]]] | None
    announce: Announce


class GoalDriver:
    """One attempt's."""

    def __init__(self, parts: GoalParts) -> None:
        self._parts = parts
        self._checking_in: Sandbox | None = None

    async def drive(self, work: Work) -> None:
        parts, job = self._parts, work.job
        begun = parts.inputs.begun
        assert begun is not None, "a source that is refused is never driven"
        deadline = asyncio.get_running_loop().time() + job.task.timeout_s
        scratch = job.folder / "scratch" / "goal"

        def left_s() -> float:
            return deadline - asyncio.get_running_loop().time()

        def tools_in(sandbox: Sandbox, sink: OutputSink | None) -> Tools:
            stdin = STDIN_PATH if job.task.stdin or job.task.stdin_sha256 else "/dev/null"
            stdin = stdin if sink is not None else "/dev/null"
            return Tools(sandbox, job.workdir, scratch, parts.redactor, left_s, sink, stdin)

        async def fresh() -> tuple[Sandbox, Tools]:
            room = parts.room
            sandbox = await room.backend.acquire(parts.choice.image, job.limits, room.lease_s)
            self._checking_in = sandbox
            await sandbox.begin({}, parts.environment, parts.sink)
            if work.stopped:
                await sandbox.stop(work.stopped)
            return sandbox, tools_in(sandbox, None)

        def clean(text: str) -> str:
            return redaction.cut_text(text, parts.redactor)

        async def announce(paths: list[str]) -> None:
            await parts.announce("task_progress", {"state": "running", "paths": paths})
            # Gossip does not come back to the agent that published it, and this agent may lead.
            with contextlib.suppress(HubError):
                head = {**_named(work), "paths": paths}
                await parts.room.hub.call_service(
                    "coordinator", "hmmm.progress", head, timeout=_TELL_TIMEOUT_S
                )

        transcript = Transcript(job.folder, clean, parts.room.now)
        progress = Progress(announce, parts.room.spawn)
        goal = GoalRun(
            work.sandbox,
            tools_in(work.sandbox, parts.sink),
            Checking(begun, scratch, fresh),
            transcript,
            parts.journal,
            has_checks=bool(job.task.checks),
            touched=progress.touched,
        )
        changed = ChangedFiles(goal.tools, goal.turn, begun.sent, progress.touched)
        goal.ran = changed.ran
        work.facts.is_goal = True
        try:
            end = await self._to_its_end(work, goal, begun, changed)
        except SandboxGone as error:
            work.gone(error)
            end = End(work.facts.ended_by, work.facts.note)
        finally:
            changed.close()
            parts.room.goals.pop((job.task_id, job.attempt), None)
            goal.close(work.stopped or "the run is over")
            parts.room.spawn(self._stop_mind(work))
        if goal.transcript.begun:
            parts.room.model_rest.there()
        if end.given_back:
            parts.room.model_rest.away(end.reason)
            transcript.close()
            raise ModelMissing(end.reason)
        # Nothing of the task lives on while its files are read.
        with contextlib.suppress(SandboxError):
            await work.sandbox.stop(work.stopped or "exit")
            if self._checking_in is not None:
                await self._checking_in.stop(work.stopped or "exit")
        await goal.settle()
        await changed.settle()
        if work.stopped in (None, "timeout", "cancel"):
            await leave(work, goal, end)
        transcript.close()

    async def _to_its_end(self, work: Work, goal: GoalRun, begun: Begun, changed: ChangedFiles) -> End:
        """Raises SandboxGone, SandboxLost, BackendUnavailable."""
        parts, job = self._parts, work.job
        found = [] if parts.earlier is None else await in_time(parts.earlier)
        record = start.record(
            job,
            begun,
            parts.room.settings.ai,
            role=parts.room.assignments.current.role,
            language=parts.choice.language,
            word=secrets.token_hex(4),
            context=await parts.room.earlier.summaries(found),
        )
        written = goal.transcript.add("start", **record)
        if begun.taken:
            said = {"taken": begun.taken, "text": f".chorus.yaml gives {', '.join(begun.taken)}"}
            parts.journal.event("message", {**said, "at": written["at"]})
        for words in start.budget_words(job.task, parts.room.settings.ai):
            parts.journal.event("message", {"text": words, "at": written["at"]})
        if (failed := await self._setup(work, goal)) is not None:
            return failed
        if work.stopped:
            return End(work.stopped, "")
        changed.begin()
        parts.room.goals[job.task_id, job.attempt] = goal
        driving = asyncio.create_task(self._keep_driving(work, goal))
        stop = asyncio.create_task(work.stop_asked.wait())
        try:
            await asyncio.wait((goal.ended, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            driving.cancel()
            stop.cancel()
        if work.stopped:
            if goal.ended.done() and goal.ended.exception() is None:
                # It came to its own end just before.
                end = goal.ended.result()
                return End(work.stopped, "") if end.given_back else end
            return End(work.stopped, "")
        return goal.ended.result()

    async def _setup(self, work: Work, goal: GoalRun) -> End | None:
        """The commands before the first step; how the run ends when one fails."""
        commands: list[dict[str, Any]] = []
        for command in work.job.task.setup:
            if work.stopped:
                return End(work.stopped, "")
            commands.append(await run_command(goal.tools, command))
            if commands[-1]["exit_code"] != 0:
                break
        if not commands:
            return None
        goal.tell(goal.transcript.add("setup", commands=commands))
        last = commands[-1]
        if last["exit_code"] == 0 or work.stopped:
            return None
        number, total = len(commands), len(work.job.task.setup)
        return End("setup", f"command {number} of {total} of setup exited with {last['exit_code']}")

    async def _keep_driving(self, work: Work, goal: GoalRun) -> None:
        """Asks `mind` to drive the goal, and again whenever it may have been restarted."""
        loop = asyncio.get_running_loop()
        job = work.job
        head = {
            **_named(work),
            "task": _task_view(job.task.model_dump(mode="json"), self._parts.room.assignments.current.role),
        }
        head["secret"] = goal.secret
        heard = loop.time()
        while True:
            why = ""
            try:
                reply = await self._parts.room.hub.call_service(
                    "mind", "drive", head, timeout=_DRIVE_TIMEOUT_S
                )
                if reply.head.get("accepted"):
                    heard = loop.time()
                else:
                    why = str(reply.head.get("reason") or "it declines")
            except HubError as error:
                why = error.message
            if loop.time() - heard > _MIND_PATIENCE_S and not goal.transcript.begun:
                goal.end(End("model", f"the process mind does not work on it: {why}", given_back=True))
                return
            await asyncio.sleep(_DRIVE_EVERY_S)

    async def _stop_mind(self, work: Work) -> None:
        with contextlib.suppress(HubError):
            await self._parts.room.hub.call_service("mind", "stop", _named(work), timeout=_STOP_TIMEOUT_S)


def _named(work: Work) -> dict[str, Any]:
    return {"task_id": work.job.task_id, "attempt": work.job.attempt}


def _task_view(task: Mapping[str, Any], role: str) -> dict[str, Any]:
    """What `mind` is told of the task beside its journal."""
    names = ("title", "project", "local_model", "required_model")
    return {**{name: task[name] for name in names}, "role": role}

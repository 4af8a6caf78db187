"""The executor process: puts its parts together, offers its services, starts, loops and stops."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

from chorus import decisions
from chorus.blobs import BlobStore
from chorus.config import MeshSettings
from chorus.executor import redaction
from chorus.executor.backend import Limits, SandboxError
from chorus.executor.copies import AttemptCopies
from chorus.executor.desk import Desk
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.engine import Engine
from chorus.executor.goal import models
from chorus.executor.goal.session_service import SessionService
from chorus.executor.image_store import ImageStore
from chorus.executor.journal import RECORD_FILE, Journal, attempt_folder, record_aside
from chorus.executor.outbox import Outbox
from chorus.executor.output_service import OutputService
from chorus.executor.proposals import propose
from chorus.executor.publisher import Publisher
from chorus.executor.redaction import RedactorFactory
from chorus.executor.retention import Retention
from chorus.executor.room import Room
from chorus.executor.watch import BackendWatch, watch_table
from chorus.hub import HubInvalid, HubNotFound, Reply, Request, guard
from chorus.process import Process, metrics
from chorus.process.sentinel import scanner_of
from chorus.table.reader import TableReader
from chorus.wire.task import Resources

# What follows the results of the last tasks, at the end of a stop.
_LAST_WORDS_S = 5.0
# Beside every change of an attempt: containers of the warm pool come and go by themselves.
SAMPLE_S = 2.0
# Warm sandboxes wait for the mesh, whose lease they have.
MESH_POLL_S = 0.2


class Executor:
    """The process's parts and its services."""

    def __init__(
        self, process: Process, redactor: RedactorFactory | None = None, *, after_hang: bool = False
    ) -> None:
        settings = process.settings
        if redactor is None:
            redactor = partial(redaction.Sentinel, scanner=scanner_of(settings), log=process.log)
        self._process = process
        # Whether this process's last life was ended because it did not answer.
        self._after_hang = after_hang
        box = settings.sandbox
        ceiling = Limits(box.cpus, box.memory_bytes, box.pids, box.disk_bytes)
        asked = Resources()
        usual = Limits(
            min(asked.cpus, ceiling.cpus),
            min(asked.memory_mb << 20, ceiling.memory_bytes),
            min(asked.pids, ceiling.pids),
            min(asked.disk_mb << 20, ceiling.disk_bytes),
        )
        backend = DockerBackend(
            Engine(settings.docker_host),
            peer=settings.peer_id,
            boot=settings.boot_id,
            default=usual,
            warm=box.warm,
            lease_s=MeshSettings.of_founder(settings).lease_s,
        )
        self.room = Room(
            settings=settings,
            assignments=process.assignments,
            hub=process.hub,
            table=TableReader(settings.paths.table_db),
            blobs=BlobStore(settings.paths.blobs, settings.blobs_bytes),
            outbox=Outbox(settings.paths.executor_db),
            backend=backend,
            images=ImageStore(backend),
            ceiling=ceiling,
            redactor=redactor,
            log=process.log,
            operations=process.operations,
        )
        self.session = SessionService(self.room.goals)
        self.desk = Desk(self.room)
        self.retention = Retention(self.room, self._busy)
        self.copies = AttemptCopies(self.room, self.retention.reason_gone)
        self.publisher = Publisher(self.room, self.copies)
        self.watch = BackendWatch(self.room, self.desk)
        self.room.publish = self.publisher.publish
        self.room.backend_lost = self.watch.suspect
        self.room.sampled = self._sampled

    async def run(self) -> None:
        """Until the process is to stop."""
        self._give_back_earlier()
        async with asyncio.TaskGroup() as group:
            loops = [
                # One that fails begins again: no error in what goes on beside them may end the attempts.
                group.create_task(guard.lasting(self.watch.run, "answer")),
                group.create_task(guard.lasting(lambda: watch_table(self.room, self.desk), "event")),
                group.create_task(guard.lasting(self._prewarm, "answer")),
                group.create_task(guard.lasting(self._sample, "record")),
                group.create_task(guard.lasting(self.retention.run, "record")),
                group.create_task(guard.lasting(self.copies.run, "record")),
            ]
            output = OutputService(
                self.room.settings.paths.tasks,
                lambda task, attempt: self.room.journals.get((task, attempt)),
                self._over,
                lambda peer: self.room.table.member(peer) is not None,
                self.retention.reason_gone,
                self.copies.take,
                self._message,
            )
            self.publisher.resume()
            await self.room.hub.offer("session", self.session.handle)
            await self.room.hub.offer("output", output.handle, peers=True, streams=output.stream)
            await self._process.offer(
                {
                    "health": self._health,
                    "award": self._award,
                    "profile": self._profile,
                    "drain": self._drain,
                    "release": self._release,
                    "decision": self._decision,
                    "message": self._said,
                },
                peers=True,
            )
            await self._process.stopping.wait()
            await self._stop()
            for loop in loops:
                loop.cancel()
        with contextlib.suppress(SandboxError):
            await self.room.backend.close()
        self.room.outbox.close()
        self.room.table.close()

    async def _stop(self) -> None:
        self.desk.closed_reason = "this agent is stopping"
        self.desk.stop_all("lost", "the agent stopped")
        await self.desk.settle(_LAST_WORDS_S)
        await self.publisher.settle(_LAST_WORDS_S)
        await self.room.settle(_LAST_WORDS_S)

    def _give_back_earlier(self) -> None:
        """Attempts of an earlier life of this process: their sandboxes are gone.

        Those with a result are not lost.
        """
        room = self.room
        kept = {(item.task_id, item.attempt) for item in room.outbox.items()}
        for row in room.table.running_on(room.settings.peer_id):
            key = (row.task_id, row.attempt)
            if key in kept:
                continue
            self.desk.given_back.add(key)
            reason = "the executor restarted while it ran"
            if self._after_hang:
                reason = "the executor did not answer while it ran, and was restarted"
            folder = attempt_folder(room.settings.paths.tasks, *key)
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    journal = Journal(folder, row.attempt)
                    journal.event(
                        "gap", {"lost": "unknown", "detail": "output written while the executor was gone"}
                    )
                    journal.event("state", {"state": "released", "reason": reason, "at": room.now()})
                    journal.close()
            body = {"task_id": row.task_id, "attempt": row.attempt, "reason": reason}
            if self._after_hang:
                body["cause"] = "unresponsive"
            room.spawn(propose(room.hub, "release", body))

    def _busy(self) -> set[str]:
        """The tasks that something of this process still writes of."""
        room = self.room
        keys = {*self.desk.attempts, *room.journals, *((i.task_id, i.attempt) for i in room.outbox.items())}
        return {task_id for task_id, _ in keys} | self.publisher.working

    def _over(self, task_id: str, number: int) -> bool:
        """Whether an attempt has ended in the table here: then nobody writes to a closed journal again."""
        attempts = self.room.table.attempts(task_id)
        return any(row.attempt == number and not row.open for row in attempts)

    # ---- services --------------------------------------------------------------------------------

    async def _award(self, request: Request) -> dict[str, Any]:
        """`award` {task_id, attempt, index}: the table has the last word, so whoever asks may ask."""
        head = request.head
        task_id, attempt, index = head.get("task_id"), head.get("attempt"), head.get("index")
        if not isinstance(task_id, str) or not isinstance(attempt, int):
            raise HubInvalid("award names task_id and attempt")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.watch.known.wait()
        answer = await self.desk.award(task_id, attempt, index if isinstance(index, int) else 0)
        return {"accepted": answer.accepted, "reason": answer.reason}

    async def _health(self, request: Request) -> dict[str, Any]:
        """`health`: whether sandboxes can be had, and how much is free."""
        state, most = self.watch.state, self.room.assignments.current.max_tasks
        return {
            "ok": state.ok,
            "detail": state.detail,
            "active": self.desk.active,
            "max": most,
            "available": max(0, most - self.desk.active),
            "pending_results": self.publisher.pending,
            "docker": {"ok": state.ok, "detail": state.detail},
        }

    async def _profile(self, request: Request) -> dict[str, Any]:
        """`profile`: what this agent can run, for its entry in the table."""
        box = self.room.settings.sandbox
        reason = self.desk.closed_reason or ("" if self.watch.state.ok else self.watch.state.detail)
        images: list[str] = []
        if self.watch.state.ok:
            with contextlib.suppress(SandboxError):
                images = await self.room.images.present(sorted({*box.images.values(), *box.allow}))
        here = [language for language, image in box.images.items() if image in images]
        return {
            "languages": here,
            "images": images,
            "accepting": not reason,
            "reason": reason,
            "active": self.desk.active,
            "max_tasks": self.room.assignments.current.max_tasks,
            **await models.said(self.room.hub, self.room.settings.ai, self.room.model_rest),
        }

    async def _said(self, request: Request) -> dict[str, Any]:
        """`message` {task_id, attempt, id, text, name}: a process of this agent has words for a goal."""
        return self._message(request)

    def _message(self, request: Request) -> dict[str, Any]:
        """Words for a goal that runs here. A person's they are from this agent, or from the member that
        vouched for the task; whoever else says them is a peer.
        """
        row = self.room.table.task(str(request.head.get("task_id")))
        trusted = request.peer is None or (row is not None and request.peer == row.vouched_by)
        person = trusted and request.head.get("from", "person") == "person"
        return self.session.message(request.head, "person" if person else "peer")

    async def _drain(self, request: Request) -> dict[str, Any]:
        """`drain` {deadline_s}: takes nothing new, answers when what runs has ended or the deadline is
        over.
        """
        self.desk.closed_reason = "draining: this agent is about to stop"
        self.desk.stop_unbegun("this agent is about to stop")
        deadline = float(request.head.get("deadline_s") or request.timeout)
        done = await self.desk.settle(deadline)
        if done:
            await self.publisher.settle(min(deadline, _LAST_WORDS_S))
        return {"done": done, "active": self.desk.active}

    async def _release(self, request: Request) -> dict[str, Any]:
        """`release`: gives unfinished tasks back to the mesh now."""
        self.desk.closed_reason = self.desk.closed_reason or "this agent is stopping"
        given = self.desk.active
        self.desk.stop_all("lost", "the agent was told to give its tasks back")
        done = await self.desk.settle(_LAST_WORDS_S)
        await self.room.settle(_LAST_WORDS_S)
        return {"done": done, "released": given}

    async def _decision(self, request: Request) -> Reply:
        """`decision` {hash}: the plain record, from this agent's disk or the DHT."""
        name = str(request.head.get("hash", ""))
        row = self.room.table.decision(name)
        if row is not None and row.task_id is not None and row.attempt is not None:
            tasks = self.room.settings.paths.tasks
            for path in (
                attempt_folder(tasks, row.task_id, row.attempt) / RECORD_FILE,
                record_aside(tasks, row.task_id, row.attempt),
            ):
                with contextlib.suppress(FileNotFoundError):
                    encoded = await asyncio.to_thread(path.read_bytes)
                    if decisions.hash_of(encoded) == name:
                        return Reply({"hash": name}, encoded)
        try:
            found = await decisions.fetch(self.room.hub, name, hints=() if row is None else (row.author,))
        except decisions.DecisionError as error:
            raise HubNotFound(f"no believable record of that hash: {error.reason}") from None
        return Reply({"hash": name}, decisions.encode(found.record))

    # ---- loops -----------------------------------------------------------------------------------

    async def _prewarm(self) -> None:
        """The first task should not wait for a container either: the base image and Python are what most
        ask for.
        """
        await self.watch.known.wait()
        while (mesh := self.room.table.mesh()) is None:  # noqa: ASYNC110
            await asyncio.sleep(MESH_POLL_S)
        self.room.backend.lease_s = mesh.settings.lease_s
        for language in ("base", "python"):
            image = self.room.settings.sandbox.images.get(language)
            if image and self.watch.state.ok:
                with contextlib.suppress(SandboxError):
                    if await self.room.images.present([image]):
                        self.room.backend.prewarm(image)

    async def _sample(self) -> None:
        while True:
            self._sampled()
            await asyncio.sleep(SAMPLE_S)

    def _sampled(self) -> None:
        attempts = self.desk.attempts.values()
        metrics.SANDBOX_CONTAINERS.set(self.room.backend.containers)
        metrics.SANDBOX_CPU.set(sum(attempt.cpu_cores for attempt in attempts))
        metrics.SANDBOX_MEMORY.set(sum(attempt.memory_bytes for attempt in attempts))


async def main(process: Process) -> None:
    """The body of `python -m chorus.executor`."""
    await Executor(process, after_hang=process.was_unresponsive).run()

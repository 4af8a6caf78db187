"""Services for tasks: submit, cancel, retry, and entries proposed for the agent's other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from chorus.archives.checked import CheckedArchives
from chorus.archives.errors import ArchiveRefused
from chorus.blobs import BlobStore
from chorus.blobs.exchange import push
from chorus.coordinator.follower import Follower
from chorus.coordinator.importing import Importing
from chorus.coordinator.newest import Newest
from chorus.coordinator.notes import Notes
from chorus.coordinator.proposals import Proposals
from chorus.coordinator.table_version import no_goals_yet
from chorus.hub import Hub, HubError, HubInvalid, HubNotFound, HubRefused, HubUnavailable, Request
from chorus.process import Process
from chorus.table import bounds
from chorus.table.reader import TableReader
from chorus.table.records import Body, Member, Mesh, Task
from chorus.table.view import view
from chorus.wire.ids import is_id, new_id
from chorus.wire.secrets import SEALED_PREFIX, seal_secrets
from chorus.wire.task import TaskInvalid, TaskSubmission, check_entry_size, parse_task

# How long a submitter waits for a leader unless told otherwise: an election at default timings fits in.
SUBMIT_WAIT_S = 20.0
# A second copy is made in this time, or the task is accepted with one.
SECOND_COPY_S = 2.0

# What other processes of this agent may say through the coordinator; the rest has services of its own.
PROPOSABLE = frozenset(
    {
        "decline",
        "claim",
        "started",
        "result",
        "goal_result",
        "release",
        "give_back",
        "decision",
        "version",
        "holders",
    }
)


class Submission:
    """Takes tasks and entries from the agent's own processes."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        proposals: Proposals,
        blobs: BlobStore,
        newest: Newest,
        importing: Importing,
    ) -> None:
        self._process, self._hub, self._follower, self._proposals = process, hub, follower, proposals
        self._store = follower.store
        self._reader = TableReader(follower.store.path)
        self._blobs, self._newest, self._importing = blobs, newest, importing
        self._archives = CheckedArchives()
        self.notes = Notes(process, hub)
        # Called when a task is taken in whose blobs only this agent has.
        self.alone: Callable[[], None] = lambda: None

    async def submit(self, request: Request) -> dict[str, Any]:
        """`table.submit` {submitted_by?, wait_s?}, the task as payload -> {task, created, replicas, notices}.

        `notices` say, by field, what was done about secrets that stood where they do not belong.
        """
        try:
            task = parse_task(_json(request))
            check_entry_size(task)
        except TaskInvalid as invalid:
            raise HubInvalid(str(invalid)) from None
        wait = float(request.head.get("wait_s") or SUBMIT_WAIT_S)
        submitted_by = str(request.head.get("submitted_by") or task.submitted_by)
        return await self.take(task, submitted_by=submitted_by, wait_s=wait)

    async def take(
        self, task: TaskSubmission, *, submitted_by: str = "", submitter: str | None = None, wait_s: float
    ) -> dict[str, Any]:
        """Submits a task once; `submitter` is the signer of one heard by gossip, else this agent.

        Raises HubUnavailable while a mesh is being recovered, as the task may be one that it had, and for a
        goal while not every member knows goals.
        """
        self._check_recovered()
        task_id = task.task_id or new_id()
        if submitter is not None and any(not v.startswith(SEALED_PREFIX) for v in task.secrets.values()):
            raise HubInvalid("secrets: seal them before they are announced")
        body, notices = self._proposals.redaction.task({**task.entry(), "task_id": task_id})
        answer = await self._take(
            task, task_id, body, submitted_by=submitted_by, submitter=submitter, wait_s=wait_s
        )
        return {**answer, "notices": notices}

    async def _take(
        self,
        task: TaskSubmission,
        task_id: str,
        body: dict[str, Any],
        *,
        submitted_by: str,
        submitter: str | None,
        wait_s: float,
    ) -> dict[str, Any]:
        known = self._store.get(Body, task_id)
        if known is not None:
            return self._known(task_id, _same(known.task, body), len(task.blobs))
        if (why := self.why_not_yet(task)) is not None:
            raise HubUnavailable(why)
        body["secrets"] = await seal_secrets(self._hub, body["secrets"])
        self._check_bounds(submitted_by or submitter or self._process.settings.agent_id, submitter)
        await self._check_dependencies(task, wait_s if submitter is None else 0)
        if submitter is not None and task.source is not None and task.source.blob:
            await self._check_source(task.source.blob, task.resources.disk_mb)
        holders = await self._copies(task.blobs)
        settled = await self._proposals.propose(
            "goal" if task.is_goal else "submit",
            {
                "task_id": task_id,
                "task": body,
                "submitter": submitter or self._hub.peer_id,
                "submitted_by": submitted_by,
                "vouched_by": self._hub.peer_id,
                "holders": holders,
            },
            wait_s,
        )
        if settled.accepted:
            who = submitted_by or submitter or self._process.settings.agent_id
            said = {"task_id": task_id, "title": body["title"], "submitted_by": who}
            self.notes.write("task_submitted", said)
            return self._answer(task_id, True, len(task.blobs))
        if settled.reason.startswith("known"):
            known = self._store.get(Body, task_id)
            return self._known(task_id, known is not None and _same(known.task, body), len(task.blobs))
        if settled.reason.startswith("invalid"):
            # The table names the field from the entry on, the submitter knows it from the task on.
            raise HubInvalid(settled.reason.removeprefix("invalid: ").removeprefix("task."))
        raise HubRefused(settled.reason)

    def why_not_yet(self, task: TaskSubmission) -> str | None:
        """Why the table takes no such task yet; None when it does."""
        if not task.is_goal:
            return None
        return no_goals_yet(self._store.get(Mesh, "mesh"), self._store.records(Member))

    async def cancel(self, request: Request) -> dict[str, Any]:
        """`table.cancel` {task_id, by?, reason?} -> {state, cancelled}; remembered of an unknown task."""
        task_id = _task_id(request)
        body = {"task_id": task_id, "by": _text(request, "by"), "reason": _text(request, "reason")}
        settled = await self._proposals.propose("cancel", body, request.timeout)
        task = self._store.get(Task, task_id)
        if settled.accepted:
            self.notes.write("task_cancelled", body)
        return {"state": task.state if task is not None else None, "cancelled": settled.accepted}

    async def retry(self, request: Request) -> dict[str, Any]:
        """`table.retry` {task_id, by?} -> {task}."""
        task_id = _task_id(request)
        body = {"task_id": task_id, "by": _text(request, "by")}
        settled = await self._proposals.propose("retry", body, request.timeout)
        if settled.reason.startswith("unknown"):
            raise HubNotFound("no such task")
        if not settled.accepted:
            raise HubRefused(settled.reason)
        self.notes.write("task_retried", body)
        return {"task": self._view(task_id, None)}

    async def remove(self, request: Request) -> dict[str, Any]:
        """`table.remove` {task_id, by?}: what a task that has ended left on the disks goes, on all agents."""
        task_id = _task_id(request)
        settled = await self._proposals.propose(
            "remove", {"task_id": task_id, "by": _text(request, "by")}, request.timeout
        )
        if settled.reason.startswith("unknown"):
            raise HubNotFound("no such task")
        if not settled.accepted:
            raise HubRefused(settled.reason)
        return {}

    async def propose(self, request: Request) -> dict[str, Any]:
        """`table.propose` {type, id?}, body as payload -> {index, accepted, reason}, applied here."""
        type = str(request.head.get("type"))
        if type not in PROPOSABLE:
            raise HubInvalid(f"entries of type {type!r} are not proposed through this service")
        body = _json(request)
        if not isinstance(body, dict):
            raise HubInvalid("the payload is not a JSON object")
        if type == "version":
            # Those that an address had come first.
            self._check_recovered()
        elif self._importing.open and self._store.get(Task, str(body.get("task_id"))) is None:
            raise HubUnavailable("what this agent carried along is not in the table yet; try again")
        entry_id = request.head.get("id")
        settled = await self._proposals.propose(type, body, request.timeout, entry_id=entry_id)
        return {"index": settled.index, "accepted": settled.accepted, "reason": settled.reason}

    def _check_recovered(self) -> None:
        if self._importing.recovering:
            raise HubUnavailable(f"this agent recovers its mesh; try again later ({self._importing.detail})")

    def _known(self, task_id: str, same: bool, blobs: int) -> dict[str, Any]:
        if not same:
            raise HubRefused("conflict: there is another task with that id")
        return self._answer(task_id, False, blobs)

    def _check_bounds(self, submitted_by: str, signer: str | None) -> None:
        # The table decides; asking here first spares the copies and the entry.
        stranger = signer is not None and self._store.get(Member, signer) is None
        if (why := bounds.full(self._store, submitted_by, stranger=stranger)) is not None:
            raise HubRefused(why)

    async def _check_dependencies(self, task: TaskSubmission, wait_s: float) -> None:
        unknown = self._unknown(task)
        if unknown is not None and wait_s > 0:
            # Another agent may have taken it in just now.
            await self._newest.caught_up(wait_s)
            unknown = self._unknown(task)
        if unknown is not None:
            raise HubInvalid(f"depends_on: the mesh knows no task {unknown}; submit that one first")

    def _unknown(self, task: TaskSubmission) -> str | None:
        return next((other for other in task.depends_on if self._store.get(Task, other) is None), None)

    async def _check_source(self, sha256: str, disk_mb: int) -> None:
        """Of a task heard by gossip; what comes over HTTP was checked there."""
        if not self._blobs.has(sha256):
            raise HubInvalid(f"source: blob {sha256} is not on this agent; upload it first")
        try:
            await self._archives.check(sha256, self._blobs.path(sha256), bytes_max=disk_mb << 20)
        except ArchiveRefused as error:
            raise HubInvalid(f"source: {error}") from None

    async def _copies(self, blobs: tuple[str, ...]) -> list[str]:
        """Who holds all the blobs on disk: this agent, and another member if one answers in time."""
        for sha256 in blobs:
            if not await self._blobs.keep(sha256):
                raise HubInvalid(f"source: blob {sha256} is not on this agent; upload it first")
        holders = [self._hub.peer_id]
        if not blobs:
            return holders
        others = [peer for peer in self._present() if peer != self._hub.peer_id]
        try:
            async with asyncio.timeout(SECOND_COPY_S):
                for peer in others:
                    try:
                        for sha256 in blobs:
                            await push(self._hub, self._blobs, sha256, peer)
                    except HubError as error:
                        self._process.log.info("no second copy there", peer=peer, error=str(error))
                    else:
                        return [*holders, peer]
        except TimeoutError:
            self._process.log.warning("no second copy in time; the task is accepted with one")
        if others:
            self.alone()
        return holders

    def _present(self) -> list[str]:
        """Present members, the leader first: it is likeliest to be there."""
        mesh = self._follower.mesh()
        members = [member for member in self._store.records(Member) if member.present]
        members.sort(key=lambda member: (member.peer != mesh.leader, not member.voter, member.raft_id))
        return [member.peer for member in members]

    def _answer(self, task_id: str, created: bool, blobs: int) -> dict[str, Any]:
        # A commit is on the disks of a majority of the voters.
        voters = sum(member.voter for member in self._store.records(Member))
        replicas = max(1, voters // 2 + 1)
        task = self._store.get(Task, task_id)
        if blobs and task is not None:
            replicas = min(replicas, len(task.holders))
        return {"task": self._view(task_id, replicas), "created": created, "replicas": replicas}

    def _view(self, task_id: str, replicas: int | None) -> dict[str, Any]:
        row, mesh = self._reader.task(task_id), self._reader.mesh()
        if row is None:
            raise HubNotFound("no such task")
        leader = mesh.leader_agent_id if mesh is not None else None
        return view(row, self._reader.attempts(task_id), leader=leader, replicas=replicas)


def _same(known: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether two bodies are one task; what is sealed never looks the same twice."""
    names = known.get("secrets", {}).keys() == body["secrets"].keys()
    return names and {**known, "secrets": None} == {**body, "secrets": None}


def _task_id(request: Request) -> str:
    task_id = request.head.get("task_id")
    if not is_id(task_id):
        raise HubInvalid("task_id: give 26 upper-case letters and digits")
    return str(task_id)


def _json(request: Request) -> Any:
    try:
        return orjson.loads(request.payload)
    except orjson.JSONDecodeError:
        raise HubInvalid("the payload is not JSON") from None


def _text(request: Request, name: str) -> str:
    return str(request.head.get(name) or "")[:128]

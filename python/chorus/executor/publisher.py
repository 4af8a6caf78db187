"""Says results to the mesh until they are committed or superseded, and then what follows them.

second copy of what the attempt left -> result committed -> `end` event -> decision record (DHT, table,
announcement, log) -> `task_complete` and log entry.
Every step is in the outbox before it is begun, so that a killed agent goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from chorus import decisions
from chorus.executor import summary
from chorus.executor.copies import AttemptCopies
from chorus.executor.journal import ARTIFACTS, RECORD_FILE, Journal, attempt_folder
from chorus.executor.outbox import Item
from chorus.executor.proposals import Outcome, propose
from chorus.executor.room import Room
from chorus.hub import HubError, HubRefused
from chorus.process import metrics
from chorus.table.entries import may_count_later
from chorus.wire.ids import new_id

# As many earlier attempts as a record names.
LINKS_MAX = 64
_RETRY_FIRST_S = 0.5
_RETRY_MAX_S = 30.0
# How the table says that a record of this name is listed.
_KNOWN = "known"
# How it says that a result came too late, and that it knows no such attempt: it was of a mesh that this agent
# has left, with what nobody brought along. Any other refusal is about the result itself.
_SUPERSEDED = "superseded"
_NO_SUCH_ATTEMPT = "no such attempt"
# Blobs that nothing names go after an hour.
_KEEP_EVERY_S = 600.0
# Beyond this many at once the DHT is what is waited for.
_AT_ONCE = 16


class NameTaken(Exception):
    """Another member has listed a record of this agent's as its own."""


class Publisher:
    """Works off the outbox."""

    def __init__(self, room: Room, copies: AttemptCopies | None = None) -> None:
        self._room = room
        self._copies = copies
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._working: dict[tuple[str, int], asyncio.Task[Any]] = {}

    def resume(self) -> None:
        """What an earlier life of this process left unsaid."""
        room = self._room
        for item in room.outbox.items():
            journal = None
            if item.step == "result":
                folder = attempt_folder(room.settings.paths.tasks, item.task_id, item.attempt)
                with contextlib.suppress(OSError):  # the table tells how it ended
                    journal = Journal(folder, item.attempt)
                    room.journals[item.task_id, item.attempt] = journal
            self.publish(item, journal)

    def publish(self, item: Item, journal: Journal | None) -> None:
        """Begins with an item that is in the outbox; `journal` is the attempt's, until the result counts."""
        key = (item.task_id, item.attempt)
        task = self._room.spawn(self._work(item, journal))
        self._working[key] = task
        task.add_done_callback(lambda _: self._working.pop(key, None))

    @property
    def working(self) -> set[str]:
        """The tasks of which something is still to be said."""
        return {task_id for task_id, _ in self._working}

    @property
    def pending(self) -> int:
        """Items that are not yet said in full."""
        return len(self._working)

    async def settle(self, timeout_s: float) -> None:
        """Waits until everything was said, at most so long."""
        if self._working:
            await asyncio.wait(set(self._working.values()), timeout=timeout_s)

    async def _work(self, item: Item, journal: Journal | None) -> None:
        room = self._room
        counted = True
        if item.step == "result":
            holder = await self._second_copy(item)
            async with self._keeping_list(item):
                item, outcome = await self._say_result(item)
            counted = outcome is not None and outcome.accepted
            too_late = (_SUPERSEDED, _NO_SUCH_ATTEMPT)
            if outcome is not None and not counted and not outcome.reason.startswith(too_late):
                item, outcome = await self._say_less(item, outcome.reason)
                counted = outcome is not None and outcome.accepted
            if counted:
                self._committed(item, journal)
                if self._copies is not None:
                    room.spawn(self._copies.after_result(item.task_id, item.attempt, holder))
            else:
                self._superseded(item, journal, outcome.reason if outcome else "")
            room.journals.pop((item.task_id, item.attempt), None)
        wait = _RETRY_FIRST_S
        while True:
            try:
                if counted:
                    async with self._gate:
                        await self._follow(item)
                await asyncio.to_thread(room.outbox.done, item.task_id, item.attempt)
                outcome_name = str(item.body["outcome"]) if counted else "superseded"
                room.operation(item.task_id, item.attempt).end(outcome_name)
                return
            except NameTaken as error:
                # Readers refuse the other's listing by name, but it must not keep this one out.
                room.log.warning(str(error), task_id=item.task_id, attempt=item.attempt)
                await self._forget_record(item)
            except (HubError, OSError, sqlite3.Error, decisions.DecisionError) as error:
                room.log.warning(
                    "what follows a result is not done yet; trying again",
                    task_id=item.task_id,
                    attempt=item.attempt,
                    error=f"{type(error).__name__}: {error}",
                )
            await asyncio.sleep(wait)
            wait = min(wait * 2, _RETRY_MAX_S)
            with contextlib.suppress(sqlite3.Error):
                item = room.outbox.get(item.task_id, item.attempt) or item

    async def _second_copy(self, item: Item) -> str | None:
        """Before a result counts, two members have what the attempt left, if another takes it in time."""
        if self._copies is None:
            return None
        try:
            return await self._copies.before_result(item.task_id, item.attempt)
        except (HubError, OSError, sqlite3.Error) as error:
            self._room.log.warning("no second copy of a result", task_id=item.task_id, error=str(error))
            return None

    async def _say_result(self, item: Item) -> tuple[Item, Outcome | None]:
        """Offers a result until it counts or is refused for what it says.

        That of an agent that was removed meanwhile waits until it is a member again. It is then offered under
        another id, as the table remembers what it refused: one that is on the disk first. While the agent's
        tasks are being brought along, the coordinator has it wait.
        """
        room, wait = self._room, _RETRY_FIRST_S
        told = False
        while True:
            # A goal's result says more than that of commands.
            type = "goal_result" if "goal" in item.body else "result"
            outcome = await propose(room.hub, type, item.body, entry_id=item.entry_id)
            if outcome is None or outcome.accepted or not may_count_later(outcome.reason):
                return item, outcome
            if not told:
                told = True
                room.log.warning(
                    "a result waits until this agent is a member again",
                    task_id=item.task_id,
                    attempt=item.attempt,
                    reason=outcome.reason,
                )
            await asyncio.sleep(wait)
            wait = min(wait * 2, _RETRY_MAX_S)
            again = replace(item, entry_id=new_id())
            with contextlib.suppress(sqlite3.Error):
                await asyncio.to_thread(room.outbox.put, again)
                item = again

    @contextlib.asynccontextmanager
    async def _keeping_list(self, item: Item) -> AsyncIterator[None]:
        """Keeps the blob of a list of artifacts while nothing names it: a mesh may be without a leader for
        longer than such blobs stay.
        """
        blob = item.body.get("artifacts_blob")
        if blob is None:
            yield
            return

        async def keep() -> None:
            while True:
                await self._room.blobs.keep(blob["sha256"])
                await asyncio.sleep(_KEEP_EVERY_S)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()

    async def _say_less(self, item: Item, why: str) -> tuple[Item, Outcome | None]:
        """A result that the table does not take as it is: how the attempt ended is not lost with the rest."""
        room = self._room
        room.log.error(
            "a result does not fit the table", task_id=item.task_id, attempt=item.attempt, reason=why
        )
        less = Item(item.task_id, item.attempt, "result", new_id(), summary.bare(item.body, why), item.record)
        # On the disk as it is said, because what follows a result is made of it.
        with contextlib.suppress(sqlite3.Error):
            await asyncio.to_thread(room.outbox.put, less)
        return await self._say_result(less)

    def _committed(self, item: Item, journal: Journal | None) -> None:
        body = item.body
        if journal is not None and journal.ended:
            # A life before came as far as this.
            journal.close()
            return
        _close_with(
            journal,
            "end",
            {
                "state": body["outcome"],
                "reason": body["reason"],
                "attempt": item.attempt,
                "agent_id": self._room.settings.agent_id,
                "exit_code": body["exit_code"],
                "ended_by": body["ended_by"],
                "at": self._room.now(),
            },
        )
        if body["outcome"] == "completed":
            metrics.TASKS_COMPLETED.inc()
        elif body["outcome"] == "failed":
            metrics.TASKS_FAILED.inc()
        metrics.TASK_DURATION.observe(float(body["timings"]["running_s"]))
        if (goal := body.get("goal")) is not None:
            metrics.GOALS_ENDED.labels(body["ended_by"]).inc()
            metrics.GOAL_STEPS.inc(goal["steps"])

    def _superseded(self, item: Item, journal: Journal | None, reason: str) -> None:
        about = {"task_id": item.task_id, "attempt": item.attempt, "reason": reason}
        if reason.startswith(_NO_SUCH_ATTEMPT):
            self._room.log.warning("a result is dropped: this mesh knows nothing of its attempt", **about)
        else:
            self._room.log.info("result superseded", **about)
        _close_with(journal, "state", {"state": "superseded", "reason": reason, "at": self._room.now()})

    async def _follow(self, item: Item) -> None:
        room = self._room
        body = item.body
        record = item.record
        logged_since = record.get("logged_since")
        if "signed" not in record:
            signed = await self._make_record(item)
            length = (await room.hub.log_info())["length"]
            # The same bytes whenever this is repeated: the record's hash is its name.
            record = {**record, "signed": signed.decode(), "logged_since": length}
            item = Item(item.task_id, item.attempt, "decision", new_id(), body, record)
            await asyncio.to_thread(room.outbox.advance, item, "decision", record, item.entry_id)
        encoded = str(record["signed"]).encode()
        plain = orjson.loads(encoded)
        path = attempt_folder(room.settings.paths.tasks, item.task_id, item.attempt) / RECORD_FILE
        await asyncio.to_thread(_write_whole, path, encoded)

        async def enter(type: str, entry: dict[str, Any]) -> None:
            outcome = await propose(room.hub, type, entry, entry_id=item.entry_id)
            if outcome is None or outcome.accepted:
                return
            if may_count_later(outcome.reason):
                # The table remembers the id that it refused.
                await asyncio.to_thread(room.outbox.advance, item, "decision", item.record, new_id())
                raise HubRefused(outcome.reason)
            if not outcome.reason.startswith(_KNOWN):
                return
            listed = room.table.decision(entry["hash"])
            if listed is not None and listed.author != room.hub.peer_id:
                raise NameTaken(f"{listed.author} has listed the record {listed.hash}; it is signed anew")

        name = await decisions.publish(room.hub, encoded, plain, enter=enter, logged_since=logged_since)
        said = {
            "task_id": item.task_id,
            "attempt": item.attempt,
            "mesh": plain["mesh"],
            "exit_code": body["exit_code"],
            "summary": body["summary"],
            "decision": plain["address"],
            "ended_by": body["ended_by"],
        }
        entry = {**said, "outcome": body["outcome"], "hash": name}
        await decisions.log_once(room.hub, "task_completed", entry, since=logged_since)
        if body["outcome"] == "completed":
            await room.tell("task_complete", said)
        else:
            await room.tell("task_failed", {**said, "reason": body["reason"]})

    async def _forget_record(self, item: Item) -> None:
        """The next try makes another record, of its own time and name."""
        facts = {name: value for name, value in item.record.items() if name not in ("signed", "logged_since")}
        await asyncio.to_thread(self._room.outbox.advance, item, "decision", facts, new_id())

    async def _make_record(self, item: Item) -> bytes:
        room, body, facts = self._room, item.body, item.record
        settings = room.settings
        built = decisions.build(
            kind="task_result",
            peer=room.hub.peer_id,
            agent_id=settings.agent_id,
            role=facts.get("role", room.assignments.current.role),
            project=facts["task"]["project"],
            task_id=item.task_id,
            attempt=item.attempt,
            mesh=facts["mesh"],
            title=facts["task"]["title"],
            decided={key: body[key] for key in ("outcome", "reason", "exit_code", "ended_by")},
            summary=body["summary"],
            inputs=decisions.inputs(
                source_kind=facts["source_kind"],
                source_sha256=facts["source_sha256"],
                image=facts["image"],
                image_digest=facts["image_digest"],
                context=list(body.get("context", ())),
            ),
            commands=body["commands"],
            artifacts=_listed(body),
            usage=body["usage"],
            supersedes=self._earlier(item),
            created_at=room.now(),
            goal=body.get("goal"),
        )
        return await decisions.redact_and_sign(room.hub, built)

    def _earlier(self, item: Item) -> list[str]:
        """The addresses of what this agent or another decided in earlier attempts at the task."""
        if item.attempt == 1:
            return []
        listed = self._room.table.decisions(task_id=item.task_id, kind="task_result", limit=LINKS_MAX).items
        return [row.address for row in listed if row.attempt is not None and row.attempt < item.attempt]


def _listed(body: dict[str, Any]) -> list[dict[str, Any]]:
    """A record's artifacts; where a blob lists them, that list itself, by its hash."""
    if (blob := body.get("artifacts_blob")) is not None:
        return [{"path": ARTIFACTS, "size": blob["size"], "sha256": blob["sha256"]}]
    return [{key: item[key] for key in ("path", "size", "sha256")} for item in body["artifacts"]]


def _close_with(journal: Journal | None, event: str, data: dict[str, Any]) -> None:
    """The journal's last event. Where the disk does not take it, the table tells readers in its place."""
    if journal is not None:
        with contextlib.suppress(OSError):
            journal.event(event, data)
        journal.close()


def _write_whole(path: Path, content: bytes) -> None:
    """The file is the old one or the new one, and the new one's content is on the disk."""
    aside = path.with_suffix(".new")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise

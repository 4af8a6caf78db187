"""Says results to the mesh until they are committed or superseded, and then what follows them.

result committed -> `end` event -> decision record (DHT, table, announcement, log) -> `task_complete` and
log entry.
Every step is in the outbox before it is begun, so that a killed agent goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson

from chorus import decisions
from chorus.executor.journal import Journal, attempt_folder
from chorus.executor.outbox import Item
from chorus.executor.proposals import propose
from chorus.executor.room import Room
from chorus.hub import HubError
from chorus.process import metrics
from chorus.wire.ids import new_id
from chorus.wire.messages import COORDINATION

# As many earlier attempts as a record names.
LINKS_MAX = 64
RECORD_FILE = "decision.json"
_RETRY_FIRST_S = 0.5
_RETRY_MAX_S = 30.0
# Beyond this many at once the DHT is what is waited for.
_AT_ONCE = 16


class Publisher:
    """Works off the outbox."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._working: dict[tuple[str, int], asyncio.Task[Any]] = {}

    def resume(self) -> None:
        """What an earlier life of this process left unsaid."""
        for item in self._room.outbox.items():
            self.publish(item, None)

    def publish(self, item: Item, journal: Journal | None) -> None:
        """Begins with an item that is in the outbox; `journal` is the attempt's open one, if it is."""
        key = (item.task_id, item.attempt)
        task = self._room.spawn(self._work(item, journal))
        self._working[key] = task
        task.add_done_callback(lambda _: self._working.pop(key, None))

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
        if item.step == "result":
            outcome = await propose(room.hub, "result", item.body, entry_id=item.entry_id)
            journal = journal or Journal(
                attempt_folder(room.settings.paths.tasks, item.task_id, item.attempt), item.attempt
            )
            if outcome is None or not outcome.accepted:
                self._superseded(item, journal, outcome.reason if outcome else "")
                await asyncio.to_thread(room.outbox.done, item.task_id, item.attempt)
                return
            self._committed(item, journal)
        wait = _RETRY_FIRST_S
        while True:
            try:
                async with self._gate:
                    await self._follow(item)
                return
            except (HubError, OSError, decisions.DecisionError) as error:
                room.log.warning(
                    "the decision is not published yet; trying again",
                    task_id=item.task_id,
                    attempt=item.attempt,
                    error=str(error),
                )
            await asyncio.sleep(wait)
            wait = min(wait * 2, _RETRY_MAX_S)
            item = next(
                (i for i in room.outbox.items() if (i.task_id, i.attempt) == (item.task_id, item.attempt)),
                item,
            )

    def _committed(self, item: Item, journal: Journal) -> None:
        body = item.body
        with contextlib.suppress(OSError, ValueError):
            journal.event(
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
            journal.close()
        if body["outcome"] == "completed":
            metrics.TASKS_COMPLETED.inc()
        elif body["outcome"] == "failed":
            metrics.TASKS_FAILED.inc()
        metrics.TASK_DURATION.observe(float(body["timings"]["running_s"]))

    def _superseded(self, item: Item, journal: Journal, reason: str) -> None:
        self._room.log.info("result superseded", task_id=item.task_id, attempt=item.attempt, reason=reason)
        with contextlib.suppress(OSError, ValueError):
            journal.event("state", {"state": "superseded", "reason": reason, "at": self._room.now()})
            journal.close()

    async def _follow(self, item: Item) -> None:
        room = self._room
        body = item.body
        record = item.record
        if "signed" not in record:
            signed = await self._make_record(item)
            # The same bytes whenever this is repeated: the record's hash is its name.
            record = {**record, "signed": signed.decode()}
            item = Item(item.task_id, item.attempt, "decision", new_id(), body, record)
            await asyncio.to_thread(room.outbox.advance, item, "decision", record, item.entry_id)
        encoded = str(record["signed"]).encode()
        plain = orjson.loads(encoded)
        path = attempt_folder(room.settings.paths.tasks, item.task_id, item.attempt) / RECORD_FILE
        await asyncio.to_thread(path.write_bytes, encoded)

        async def enter(type: str, entry: dict[str, Any]) -> None:
            await propose(room.hub, type, entry, entry_id=item.entry_id)

        name = await decisions.publish(room.hub, encoded, plain, enter=enter)
        said = {
            "task_id": item.task_id,
            "attempt": item.attempt,
            "mesh": plain["mesh"],
            "exit_code": body["exit_code"],
            "summary": body["summary"],
            "decision": plain["address"],
            "ended_by": body["ended_by"],
        }
        await room.hub.log_append("task_completed", {**said, "outcome": body["outcome"], "hash": name})
        with contextlib.suppress(HubError):  # news only
            if body["outcome"] == "completed":
                await room.hub.publish(COORDINATION, "task_complete", said)
            else:
                await room.hub.publish(COORDINATION, "task_failed", {**said, "reason": body["reason"]})
        await asyncio.to_thread(room.outbox.done, item.task_id, item.attempt)

    async def _make_record(self, item: Item) -> bytes:
        room, body, facts = self._room, item.body, item.record
        settings = room.settings
        built = decisions.build(
            kind="task_result",
            peer=room.hub.peer_id,
            agent_id=settings.agent_id,
            role=settings.role,
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
            artifacts=body["artifacts"],
            usage=body["usage"],
            supersedes=self._earlier(item),
            created_at=room.now(),
        )
        # Redacted before it is hashed and signed: nobody could take a secret out of it later.
        clean = decisions.addressed(orjson.loads(await room.hub.redact(orjson.dumps(built))))

        async def signer(data: bytes) -> str:
            return (await room.hub.sign(data)).signature

        return await decisions.sign(clean, signer)

    def _earlier(self, item: Item) -> list[str]:
        """The addresses of what this agent or another decided in earlier attempts at the task."""
        listed = self._room.table.decisions(task_id=item.task_id, kind="task_result", limit=LINKS_MAX).items
        return [row.address for row in listed if row.attempt is not None and row.attempt < item.attempt]

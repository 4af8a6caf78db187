"""HMMM in the coordinator: wires its parts, serves this agent's other processes, listens to the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.hmmm.alerts import Alerts
from chorus.coordinator.hmmm.forms import item_view, session_view
from chorus.coordinator.hmmm.helping import Helping
from chorus.coordinator.hmmm.readers import READS_MS, Readers
from chorus.coordinator.hmmm.recording import Recording
from chorus.coordinator.hmmm.room import Goal, Room, now_ms
from chorus.coordinator.hmmm.store import SessionRow
from chorus.coordinator.hmmm.talk import Talk
from chorus.coordinator.proposals import Proposals
from chorus.hub import (
    Handler,
    Hub,
    HubError,
    HubInvalid,
    HubNotFound,
    HubRefused,
    Message,
    Reply,
    Request,
    disk_error,
    guard,
)
from chorus.process import Process
from chorus.table.records import Member
from chorus.wire.messages import COORDINATION, META_DISCUSSION, Intent, TaskId, TaskProgress
from chorus.wire.schema import Schema

# Deadlines far away are looked at again, because a message to publish may have waited for the hub.
LOOK_AGAIN_S: Final = 30.0
PUBLISH_AGAIN_S: Final = 1.0
RESULT_WAIT_MAX_S: Final = 60.0
# An answer comes before its asker gives up.
MARGIN_S: Final = 0.5
PAGE_MAX: Final = 500

M = TypeVar("M", bound=BaseModel)


class _Head(Schema):
    model_config = ConfigDict(extra="ignore")


class OfAttempt(_Head):
    """Names an attempt of this agent's."""

    task_id: TaskId
    attempt: Annotated[int, Field(ge=0, le=2**31)]


class Open(OfAttempt):
    """The owner's plan. Title, goal and project stand in the table."""

    plan: Annotated[str, Field(min_length=1, max_length=1_000_000)]


class Help(OfAttempt):
    """A stuck run's question; the same `id` is the same question."""

    question: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    id: Annotated[str, Field(min_length=1, max_length=128)]


class OfSession(_Head):
    """Names a session; `after` is the number of the last thing that is known, `wait_s` how long to wait."""

    session_id: TaskId
    wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    after: Annotated[int, Field(ge=0, le=2**31)] = 0


class Listed(_Head):
    """A page of sessions."""

    task_id: TaskId | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Annotated[str | None, Field(max_length=64)] = None


class Say(_Head):
    """A person's word."""

    session_id: TaskId
    message: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    intent: Intent | None = None
    name: Annotated[str, Field(max_length=128)] = ""
    parent_id: Annotated[str, Field(max_length=26)] = ""


class Hmmm:
    """Discussions, help and alerts, as one part of the coordinator."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        proposals: Proposals,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._process, self._hub = process, hub
        self.enabled = process.settings.hmmm_enabled
        self.room = Room(process, hub, follower, proposals, clock or now_ms())
        self.recording = Recording(self.room)
        self.talk = Talk(self.room, self.recording)
        self.helping = Helping(self.room, self.recording)
        self.alerts = Alerts(self.room, self.recording)
        self.readers = Readers(self.room)
        methods: dict[str, Handler] = {
            "hmmm.audience": self.audience,
            "hmmm.open": self.open,
            "hmmm.result": self.result,
            "hmmm.help": self.help,
            "hmmm.progress": self.progress,
            "hmmm.list": self.list,
            "hmmm.show": self.show,
            "hmmm.say": self.say,
            "hmmm.alert": self.alert,
            "hmmm.read": self.read,
            "hmmm.reader": self.reader,
        }
        self.methods = {name: _with_disk(method) for name, method in methods.items()}
        self._handlers: dict[str, Callable[[Message], None]] = {
            "hmmm.message": self.talk.hear,
            "task_help_request": self.helping.hear_request,
            "task_help_response": self.helping.hear_response,
            "task_progress": self.alerts.hear_progress,
            "dependency_alert": self.alerts.hear_alert,
        }
        if self.enabled:
            follower.listen(self._on_applied)

    # Living

    async def run(self) -> None:
        """Listens, leads this agent's discussions and publishes, until cancelled."""
        if not self.enabled:
            await asyncio.Event().wait()
        self.room.rebuild()
        self.talk.resume()
        self.alerts.resume()
        try:
            async with (
                self._hub.subscribe(META_DISCUSSION, COORDINATION) as messages,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(guard.each(messages, self.hear, "gossip"))
                group.create_task(self._lead())
                group.create_task(self.recording.run())
        finally:
            self.talk.close()

    def close(self) -> None:
        """Closes the file."""
        self.room.close()

    async def _lead(self) -> None:
        while True:
            self.room.spoken.clear()
            due = await self.talk.attend()
            wait = LOOK_AGAIN_S
            if due is not None:
                wait = min(wait, max(0.02, (due - self.room.now_ms()) / 1000))
            try:
                await self.talk.publish()
            except HubError as error:
                self._process.log.info("what was said is not published yet", error=str(error))
                wait = min(wait, PUBLISH_AGAIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.room.spoken.wait()

    def hear(self, message: Message) -> None:
        """One message of the mesh; what is not understood is left to its sender."""
        handle = self._handlers.get(message.type)
        if handle is None:
            return
        try:
            handle(message)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"]))
            self._process.log.info(
                "a message was not understood",
                type=message.type,
                sender=message.sender,
                error=f"{place}: {first['msg']}",
            )

    def _on_applied(self, batch: list[Applied]) -> None:
        if self.room.on_applied(batch):
            self.room.spoken.set()
        if any(applied.entry.type in ("claim", "award", "member", "join") for applied in batch):
            self.talk.hear_early()

    # For the mind

    async def audience(self, request: Request) -> dict[str, Any]:
        """`hmmm.audience` {task_id, attempt} -> {members}: how many could answer a plan."""
        asked = _read(request, OfAttempt)
        if not self.enabled:
            return {"members": 0}
        goal = self._own(asked)
        return {"members": len(self.room.chosen(goal, readers=await self.readers.of(goal)))}

    async def open(self, request: Request) -> dict[str, Any]:
        """`hmmm.open` {task_id, attempt, plan, …} -> {session_id}; a repeat answers the same."""
        self._check_enabled()
        asked = _read(request, Open)
        goal = self._own(asked)
        return {"session_id": self.talk.open(goal, asked.plan, await self.readers.of(goal))}

    async def result(self, request: Request) -> dict[str, Any]:
        """`hmmm.result` {session_id, wait_s} -> {over, outcome, plan, said, address}."""
        asked = _read(request, OfSession)
        row = self._row(asked.session_id)
        wait = min(asked.wait_s, RESULT_WAIT_MAX_S, max(0.0, request.timeout - MARGIN_S))

        def over() -> bool:
            return bool(self._row(asked.session_id).outcome)

        await self.room.until(over, wait)
        row = self._row(asked.session_id)
        session = self.talk.live(row)
        return {
            "over": bool(row.outcome),
            "outcome": row.outcome,
            "plan": session.plan.message if session.plan is not None else "",
            "said": [
                {"from": word.agent_id, "name": word.person, "intent": word.intent, "message": word.message}
                for word in session.words
                if word.peer != row.owner or word.person
            ],
            "address": self.recording.address(row),
        }

    async def help(self, request: Request) -> dict[str, Any]:
        """`hmmm.help` {task_id, attempt, question, id} -> {advice}: waits at most a minute."""
        self._check_enabled()
        asked = _read(request, Help)
        timeout = max(0.0, request.timeout - MARGIN_S)
        return {"advice": await self.helping.ask(self._own(asked), asked.question, asked.id, timeout)}

    # For the executor

    async def progress(self, request: Request) -> dict[str, Any]:
        """`hmmm.progress` {task_id, attempt, paths}: what a goal of this agent touched.

        Other agents hear `task_progress`; gossip does not come back to the agent that published it.
        """
        if self.enabled:
            self.alerts.touched(_read(request, TaskProgress), self._hub.peer_id)
        return {}

    # For the API

    async def list(self, request: Request) -> dict[str, Any]:
        """`hmmm.list` {task_id?, limit?, cursor?} -> {items, next}: sessions, newest first."""
        asked = _read(request, Listed)
        before = None
        if asked.cursor is not None:
            at, _, ident = asked.cursor.partition("-")
            if not (at.isascii() and at.isdecimal() and len(at) < 16):
                raise HubInvalid("cursor: use `next` of the page before, unchanged")
            before = (int(at), ident)
        rows = self.room.file.sessions(task_id=asked.task_id, limit=asked.limit + 1, before=before)
        page, more = rows[: asked.limit], len(rows) > asked.limit
        after = f"{page[-1].opened_at}-{page[-1].session_id}" if more else None
        return {"items": self._views(page), "next": after}

    async def show(self, request: Request) -> dict[str, Any]:
        """`hmmm.show` {session_id, after?, wait_s?} -> {session, items, ended}: what was said after a number.

        `ended` says that nothing more will come.
        """
        asked = _read(request, OfSession)
        row = self._row(asked.session_id)
        items = self.room.file.items(row.session_id, asked.after)
        return {
            "session": self._views([row])[0],
            "items": [item_view(item) for item in items],
            "ended": self._is_quiet(row),
        }

    async def say(self, request: Request) -> dict[str, Any]:
        """`hmmm.say` {session_id, message, intent?, name?, parent_id?} -> {message}: a person's word."""
        self._check_enabled()
        asked = _read(request, Say)
        row = self._row(asked.session_id)
        name = asked.name.strip() or "a person"
        item = self.talk.say(row, name, asked.message, asked.intent, asked.parent_id)
        return {"message": item_view(item)}

    async def read(self, request: Request) -> dict[str, Any]:
        """`hmmm.read` {} -> {for_s}: a person reads along through this agent, for so many seconds."""
        self._check_enabled()
        self.readers.read()
        return {"for_s": READS_MS // 1000}

    # For owners of plans

    async def reader(self, request: Request) -> dict[str, Any]:
        """`hmmm.reader` {} -> {reads}: whether a person reads along through this agent."""
        return {"reads": self.enabled and self.readers.here()}

    # For the leader

    async def alert(self, request: Request) -> dict[str, Any]:
        """`hmmm.alert`: see `Alerts.take`."""
        self._check_enabled()
        return await self.alerts.take(request)

    def _check_enabled(self) -> None:
        if not self.enabled:
            raise HubRefused("HMMM is switched off on this agent (CHORUS_HMMM_ENABLED)")

    def _own(self, asked: OfAttempt) -> Goal:
        goal = self.room.goal_of(asked.task_id, asked.attempt)
        if goal is None or goal.owner != self._hub.peer_id:
            attempt = f"attempt {asked.attempt} at goal {asked.task_id}"
            raise HubNotFound(f"{attempt} is not under way on this agent")
        return goal

    def _row(self, session_id: str) -> SessionRow:
        row = self.room.file.session(session_id)
        if row is None:
            raise HubNotFound(f"no discussion {session_id} was heard by this agent")
        return row

    def _is_quiet(self, row: SessionRow) -> bool:
        """Whether nothing more comes in a session: no conclusion, no record."""
        concluded = row.outcome or not self.enabled
        return bool(concluded and self.room.ending(row)) and not self.room.file.has_due(row.session_id)

    def _views(self, rows: Sequence[SessionRow]) -> Sequence[dict[str, Any]]:
        """Sessions in short. Reads nothing of what was said in them: a page has up to 500."""
        names = {member.peer: member.agent_id for member in self.room.table.records(Member)}
        records = self.room.file.addresses([row.session_id for row in rows])
        return [session_view(row, names, records.get(row.session_id)) for row in rows]


def _with_disk(method: Handler) -> Handler:
    """The method, with a failing disk said as that to whoever asks."""

    async def answer(request: Request) -> Reply | dict[str, Any] | None:
        try:
            return await method(request)
        except sqlite3.Error as error:
            raise disk_error(f"the discussions cannot be read or written: {error}") from error

    return answer


def _read(request: Request, model: type[M]) -> M:
    try:
        return model.model_validate(request.head)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise HubInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None

"""A task's story from its first event to its end, put together from the table and from those who ran it.

Events before the first award come from the table, those of an attempt from its executor, wherever that is;
what cannot be had is named in a `gap`. How events travel to the client is `sse`'s business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from chorus.api.context import Context, Watch
from chorus.api.problems import Problem
from chorus.api.sse import Event
from chorus.hub import ByteStream, HubError
from chorus.table.rows import AttemptRow, StateChange, TaskRow
from chorus.table.view import attempt_view
from chorus.wire.task import rfc3339

# The executor may hear of its award a moment after the table shows it, and its agent may be restarting.
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
# How often it is asked before the reader gets a `gap`; about five seconds, when a killed executor is back.
TRIES_BEFORE_GAP: Final = 8
# An attempt whose result the table has.
_ENDED: Final = ("completed", "failed", "cancelled")
OPEN_TIMEOUT_S: Final = 5.0
# One event of an executor: a chunk of output in JSON, with room to spare.
LINE_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """After which event a reader goes on."""

    attempt: int = 0
    n: int = 0


def parse_place(text: str | None) -> Place:
    """Reads a Last-Event-ID; absent or empty means from the beginning."""
    if not text:
        return Place()
    attempt, dash, n = text.partition("-")
    if not (dash and attempt.isdecimal() and n.isdecimal() and len(text) <= 20 and text.isascii()):
        message = "expected <attempt>-<n> as in the id of an event"
        raise Problem(400, f"Last-Event-ID: {message}", errors=[("Last-Event-ID", message)])
    return Place(int(attempt), int(n))


class Story:
    """The events of one task after a place. Iterate `events` once; it yields what is there in batches."""

    def __init__(self, context: Context, task_id: str, place: Place) -> None:
        self._context = context
        self._table = context.table
        self._task_id = task_id
        self._place = place
        # Set when a reader comes back after it was told the end.
        self._end_told = False

    async def events(self) -> AsyncIterator[list[Event]]:
        """Yields until the story's end has been told."""
        with self._context.changes.watch(self._task_id) as watch:
            while True:
                row = self._context.task(self._task_id)
                # Read after the row, so that everything up to a final state is in them.
                attempts = {attempt.attempt: attempt for attempt in self._table.attempts(self._task_id)}
                if self._place.attempt == 0:
                    told = self._told(0)
                    if told:
                        yield told
                    if attempts:
                        self._place = Place(min(attempts), 0)
                        continue
                    if not row.open:
                        if not self._end_told:
                            yield [self._end(row, numbered=True)]
                        return
                    await watch.changed()
                    continue
                attempt = attempts.get(self._place.attempt)
                later = [number for number in attempts if number > self._place.attempt]
                if attempt is None and not later:
                    if not row.open:
                        return
                    await watch.changed()
                    continue
                if attempt is not None:
                    if attempt.open and attempt.claimed_at is None:
                        await watch.changed()
                        continue
                    async for batch in self._attempt(attempt, watch):
                        yield batch
                    row = self._context.task(self._task_id)
                    later = [
                        a.attempt for a in self._table.attempts(self._task_id) if a.attempt > attempt.attempt
                    ]
                if later:
                    self._place, self._end_told = Place(min(later), 0), False
                elif not row.open:
                    return
                else:
                    await watch.changed()

    async def _attempt(self, attempt: AttemptRow, watch: Watch) -> AsyncIterator[list[Event]]:
        """One attempt: from its executor while that can be reached, the rest from the table."""
        number = attempt.attempt
        complete = True
        if attempt.claimed_at is not None:
            ended = False
            warned = False
            wait = RETRY_FIRST_S
            tries = 0
            while True:
                try:
                    async for batch in self._from_executor(attempt):
                        wait, tries, warned = RETRY_FIRST_S, 0, False
                        last = batch[-1]
                        if last.event == "end":
                            batch[-1] = await self._settled(last, attempt, watch)
                            ended = True
                        yield batch
                        if ended:
                            return
                    complete = True
                    if self._end_told:
                        return
                except HubError as error:
                    complete = False
                    tries += 1
                    attempt = self._current(attempt)
                    lost = error.code == "not_found" and not attempt.open
                    if (lost or tries >= TRIES_BEFORE_GAP) and not warned:
                        warned = True
                        yield [self._gap(attempt, error)]
                attempt = self._current(attempt)
                if not attempt.open and (complete or warned):
                    break
                await watch.changed(wait)
                wait = min(wait * 2, RETRY_MAX_S)
        row = self._context.task(self._task_id)
        rest = self._told(number) if attempt.claimed_at is None else self._last_state(number, complete)
        if not row.open and row.attempt <= number and not self._end_told:
            rest.append(self._end(row, numbered=complete))
        if rest:
            yield rest

    async def _from_executor(self, attempt: AttemptRow) -> AsyncIterator[list[Event]]:
        head = {
            "task_id": self._task_id,
            "attempt": attempt.attempt,
            # The event told last comes again: if it is the end, there is nothing after it.
            "after": max(0, self._place.n - 1),
            "follow": attempt.open,
        }
        stream = await self._context.hub.open_stream(
            "output", "events", head, peer=attempt.agent, timeout=OPEN_TIMEOUT_S
        )
        async with stream:
            async for lines in _lines(stream):
                batch = [event for event in map(_event, lines) if self._take(event)]
                if batch:
                    yield batch

    def _take(self, event: Event) -> bool:
        """Moves our place behind the event; False when it was told already."""
        if event.id is None:
            return True
        place = parse_place(event.id)
        if place.attempt != self._place.attempt or place.n <= self._place.n:
            self._end_told = event.event == "end" and place == self._place
            return False
        self._place = place
        return True

    async def _settled(self, event: Event, attempt: AttemptRow, watch: Watch) -> Event:
        """The executor's `end`, once the table here shows it too; of an older attempt it is only a state.

        It is told after the result was entered, so that the table will show it, however late: a reader that
        was told less than `end` would come back to a story without one.
        """
        while self._current(attempt).state not in _ENDED:
            await watch.changed()
        row = self._context.task(self._task_id)
        if row.open or row.attempt > attempt.attempt:
            return replace(event, event="state")
        return replace(
            event, data={**_end_data(row), **{k: v for k, v in event.data.items() if v is not None}}
        )

    def _told(self, number: int) -> list[Event]:
        """The table's states of an attempt that no executor told of, after our place."""
        changes = [change for change in self._table.history(self._task_id) if change.attempt == number]
        told = [
            Event(f"{number}-{n}", "state", _state_data(change))
            for n, change in enumerate(changes, 1)
            if n > self._place.n
        ]
        # An event after the last change can only have been the end.
        self._end_told = self._place.n > len(changes)
        self._place = Place(number, max(self._place.n, len(changes)))
        return told

    def _last_state(self, number: int, numbered: bool) -> list[Event]:
        """How an attempt ended whose executor did not say so."""
        changes = [change for change in self._table.history(self._task_id) if change.attempt == number]
        if not changes:
            return []
        return [Event(self._next_id() if numbered else None, "state", _state_data(changes[-1]))]

    def _end(self, row: TaskRow, *, numbered: bool) -> Event:
        return Event(self._next_id() if numbered else None, "end", _end_data(row))

    def _next_id(self) -> str:
        self._place = Place(self._place.attempt, self._place.n + 1)
        return f"{self._place.attempt}-{self._place.n}"

    def _gap(self, attempt: AttemptRow, error: HubError) -> Event:
        data = {
            "attempt": attempt.attempt,
            "agent_id": attempt.agent_id,
            "lost": "unknown",
            "detail": f"the agent that ran this attempt cannot be asked: {error.message}",
            "known": attempt_view(attempt),
        }
        return Event(None, "gap", data)

    def _current(self, attempt: AttemptRow) -> AttemptRow:
        for row in self._table.attempts(self._task_id):
            if row.attempt == attempt.attempt:
                return row
        return attempt


async def _lines(stream: ByteStream) -> AsyncIterator[list[bytes]]:
    """The complete lines of each piece as it comes."""
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_MAX_BYTES:
            raise HubError(f"an event is longer than {LINE_MAX_BYTES} bytes", code="too_large")
        if lines:
            yield lines


def _event(line: bytes) -> Event:
    try:
        value = orjson.loads(line)
        return Event(str(value["id"]), str(value["event"]), dict(value["data"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return Event(None, "gap", {"lost": "1 event", "detail": "an event of the executor could not be read"})


def _state_data(change: StateChange) -> dict[str, Any]:
    return {"state": change.state, "reason": change.reason, "at": rfc3339(change.at_ms)}


def _end_data(row: TaskRow) -> dict[str, Any]:
    result = row.result or {}
    return {
        "state": row.state,
        "reason": row.reason,
        "attempt": row.attempt,
        "agent_id": row.agent_id,
        "exit_code": result.get("exit_code"),
        "ended_by": result.get("ended_by"),
        "decision": row.decision or result.get("decision"),
        "at": None if row.finished_at is None else rfc3339(row.finished_at),
    }

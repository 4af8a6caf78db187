"""A task's story from its first event to its end, put together from the table and from those who ran it.

Each attempt's events are first its executor's, if it was claimed, and then the states that the table went
through since; the time before the first award is told by the table alone. So an event's number never
changes: only its name does, when a task whose `end` was told is tried again and goes on after it.
What cannot be had is named in a `gap`. How events travel to the client is `sse`'s business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from chorus.api.context import Context, Watch
from chorus.api.problems import GONE_PREFIX, Problem
from chorus.api.sse import Event
from chorus.api.teller import Over, Place, place_of, tell
from chorus.hub import HubError
from chorus.table.rows import AttemptRow, StateChange, TaskStory
from chorus.table.view import attempt_view
from chorus.wire.times import rfc3339

# The executor may hear of its award a moment after the table shows it, and its agent may be restarting.
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
# How often it is asked before the reader gets a `gap`; about five seconds, when a killed executor is back.
TRIES_BEFORE_GAP: Final = 8
# What the table says of an attempt while its executor tells of it.
_UNDER_WAY: Final = ("claimed", "running")


def parse_place(text: str | None) -> Place:
    """Reads a Last-Event-ID; absent or empty means from the beginning."""
    if not text:
        return Place()
    place = place_of(text)
    if place is None:
        message = "expected <attempt>-<n> as in the id of an event"
        raise Problem(400, f"Last-Event-ID: {message}", errors=[("Last-Event-ID", message)])
    return place


class Story:
    """The events of one task after a place. Iterate `events` once; it yields what is there in batches."""

    def __init__(self, context: Context, task_id: str, place: Place) -> None:
        self._context = context
        self._task_id = task_id
        self._place = place
        self._over = False

    async def events(self) -> AsyncGenerator[list[Event]]:
        """Yields until the story's end has been told."""
        with self._context.changes.watch(self._task_id) as watch:
            while not self._over:
                told = self._look()
                number = self._place.attempt
                attempt = _attempt(told, number)
                if attempt is None and number > 0:
                    # An attempt that the table here does not have (yet).
                    if not told.row.open:
                        return
                    await watch.changed()
                elif attempt is not None and attempt.claimed_at is None and attempt.open:
                    await watch.changed()
                else:
                    async with aclosing(self._attempt(number, attempt, watch)) as batches:
                        async for batch in batches:
                            yield batch

    async def _attempt(
        self, number: int, attempt: AttemptRow | None, watch: Watch
    ) -> AsyncGenerator[list[Event]]:
        """One attempt to its end, and the place moved to the next; `_over` when there is none."""
        base: int | None = 0
        start = 0
        if attempt is not None and attempt.claimed_at is not None:
            base, start = None, _closing(self._changes(number))
            async with aclosing(self._executors(attempt, watch)) as telling:
                async for told in telling:
                    if isinstance(told, Over):
                        base, start = told.events, await self._since(number, told.ended, watch)
                    else:
                        yield told
            if self._over:
                return
            if base is None:
                start = _closing(self._changes(number))
        async with aclosing(self._rest(number, base, start, watch)) as batches:
            async for batch in batches:
                yield batch

    # ---- what the executor tells -----------------------------------------------------------------

    async def _executors(self, attempt: AttemptRow, watch: Watch) -> AsyncGenerator[list[Event] | Over]:
        """The executor's events, over any number of broken streams; `Over` comes last, if at all."""
        number = attempt.attempt
        warned = False
        wait, tries = RETRY_FIRST_S, 0

        def is_open() -> bool:
            current = _attempt(self._look(), number)
            return current is not None and current.open

        while True:
            after = self._place.n
            failure: HubError | None = None
            try:
                async with aclosing(self._tell(attempt, after, is_open)) as telling:
                    async for told in telling:
                        wait, tries, warned = RETRY_FIRST_S, 0, False
                        if isinstance(told, Over):
                            yield told
                            return
                        place = next((n for n, event in enumerate(told) if event.event == "end"), None)
                        if place is None:
                            self._pass(told)
                            yield told
                            continue
                        # Nothing that an honest executor says comes after it.
                        *before, end = told[: place + 1]
                        if before:
                            self._pass(before)
                            yield before
                        self._pass([end])
                        settled = await self._settled(end, number, watch)
                        self._over = settled.event == "end"
                        yield [settled]
                        if self._over:
                            return
                        yield Over(self._place.n, str(end.data.get("state")))
                        return
                if not is_open():
                    # Its own table may be behind; one that stays so must not keep the reader for ever.
                    failure = HubError("it does not say how the attempt ended", code="unavailable")
            except HubError as error:
                failure = error
            if failure is not None:
                tries += 1
                given_up = failure.code in ("not_found", "timeout") and not is_open()
                if (given_up or tries >= TRIES_BEFORE_GAP) and not warned:
                    warned = True
                    yield [self._gap(number, failure)]
            if warned and not is_open():
                return
            await watch.changed(wait)
            wait = min(wait * 2, RETRY_MAX_S)

    def _tell(
        self, attempt: AttemptRow, after: int, is_open: Callable[[], bool]
    ) -> AsyncGenerator[list[Event] | Over]:
        return tell(self._context.hub, self._context.table, attempt, after, is_open)

    def _pass(self, events: list[Event]) -> None:
        places = [place_of(event.id) for event in events if event.id is not None]
        self._place = next((place for place in reversed(places) if place), self._place)

    async def _settled(self, event: Event, number: int, watch: Watch) -> Event:
        """The executor's `end`, once the table here shows it too; a state, if the story went on after it.

        It is told after the result was entered, so that the table will show it, however late: a reader that
        was told less than `end` would come back to a story without one.
        """
        start = await self._since(number, str(event.data.get("state")), watch)
        told = self._look()
        if told.row.open or _later(told, number) or start < len(self._changes(number)):
            return replace(event, event="state")
        said = {key: value for key, value in event.data.items() if value is not None}
        return replace(event, data={**_end_data(told), **said})

    async def _since(self, number: int, ended: str | None, watch: Watch) -> int:
        """Where in the attempt's states those begin that its executor, who told that end, did not tell."""
        while True:
            told = self._look()
            changes, attempt = self._changes(number, told), _attempt(told, number)
            if ended is None:
                return _closing(changes)
            if attempt is not None and attempt.state == ended:
                for place, change in enumerate(changes):
                    if change.state == ended and change.at_ms == attempt.finished_at:
                        return place + 1
            if not told.row.open or _later(told, number):
                # It says what the mesh did not count.
                return _closing(changes)
            await watch.changed()

    # ---- what the table tells --------------------------------------------------------------------

    async def _rest(
        self, number: int, base: int | None, start: int, watch: Watch
    ) -> AsyncGenerator[list[Event]]:
        """The attempt's states from `start` on, numbered after `base`, until the story is over or goes on
        with another attempt.
        """
        done = start if base is None else start + max(0, self._place.n - base)
        while True:
            told = self._look()
            changes = self._changes(number, told)
            later = _later(told, number)
            events = []
            for place in range(done, len(changes)):
                last = not told.row.open and not later and place == len(changes) - 1
                data = _end_data(told) if last else _state_data(changes[place])
                if base is not None:
                    self._place = Place(number, base + place - start + 1)
                ident = None if base is None else str(self._place)
                events.append(Event(ident, "end" if last else "state", data))
            done = max(done, len(changes))
            if events:
                yield events
            if later:
                self._place = Place(min(later), 0)
                return
            if not told.row.open:
                self._over = True
                return
            await watch.changed()

    def _gap(self, number: int, error: HubError) -> Event:
        attempt = _attempt(self._look(), number)
        why = f"the agent that ran this attempt cannot be asked: {error.message}"
        if error.code == "not_found" and error.message.startswith(GONE_PREFIX):
            why = error.message.removeprefix(GONE_PREFIX).strip()
        data = {
            "attempt": number,
            "agent_id": attempt.agent_id if attempt else None,
            "lost": "unknown",
            "detail": why,
            "known": attempt_view(attempt) if attempt else None,
        }
        return Event(None, "gap", data)

    def _look(self) -> TaskStory:
        told = self._context.table.story(self._task_id)
        if told is None:
            raise Problem(404, f"task {self._task_id} is not known any more")
        return told

    def _changes(self, number: int, told: TaskStory | None = None) -> list[StateChange]:
        return [change for change in (told or self._look()).changes if change.attempt == number]


def _attempt(told: TaskStory, number: int) -> AttemptRow | None:
    return next((attempt for attempt in told.attempts if attempt.attempt == number), None)


def _later(told: TaskStory, number: int) -> list[int]:
    return [attempt.attempt for attempt in told.attempts if attempt.attempt > number]


def _closing(changes: list[StateChange]) -> int:
    """Where the state stands that ended a claimed attempt: the first after its award, claim and start."""
    for place, change in enumerate(changes):
        if place > 0 and change.state not in _UNDER_WAY:
            return place
    return len(changes)


def _state_data(change: StateChange) -> dict[str, Any]:
    return {"state": change.state, "reason": change.reason, "at": rfc3339(change.at_ms)}


def _end_data(told: TaskStory) -> dict[str, Any]:
    row = told.row
    attempt = _attempt(told, row.attempt)
    # A task that was tried again and ended before another award has a result that is not of this end.
    own = attempt is not None and attempt.finished_at == row.finished_at
    result = (row.result if own else None) or {}
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

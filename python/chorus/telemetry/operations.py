"""Operations that a process follows: which phase they are in and how long each phase took.

A process only notes; one task of it hands the notes to the BACKBEAT client in the background. While BACKBEAT
is off, noting does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import orjson

from chorus.hub import Hub, HubError

# Where the client takes notes: a method of the process that it lives in.
SERVICE: Final = "api"
NOTE: Final = "backbeat.note"
Kind = Literal["p2p_start", "dht_bootstrap", "election", "task", "hmmm_session"]
# Notes that the client has not taken yet; of more the oldest are dropped.
NOTES_MAX: Final = 1_024
# Operations under way; an agent runs at most a thousand tasks at once.
OPEN_MAX: Final = 2_048
# A discussion may change its phase often.
PHASES_MAX: Final = 32
BATCH_MAX: Final = 64
CALL_S: Final = 5.0
AGAIN_FIRST_S: Final = 0.5
AGAIN_MAX_S: Final = 15.0


class Operation:
    """One operation under way. `age_s` is how long its first phase has lasted when it begins."""

    def __init__(
        self, operations: Operations, head: dict[str, Any], phase: str, age_s: float, now: float
    ) -> None:
        self._operations, self._head = operations, head
        self.ident: str = head["operation_id"]
        self._phase, self._since, self._began = phase, now - age_s, now - age_s
        self._phases: list[dict[str, Any]] = []

    def phase(self, name: str) -> None:
        """The next phase begins; the same one again changes nothing."""
        if self._phase and name != self._phase:
            self._close()
            self._phase = name
            self._operations.note(self._said(""))

    def end(self, outcome: str) -> None:
        """It has ended: `completed`, `failed`, or another short word for how."""
        if self._phase:
            self._close()
            self._phase = ""
            self._operations.over(self)
            self._operations.note(self._said(outcome))

    def _close(self) -> None:
        now = self._operations.clock()
        if len(self._phases) < PHASES_MAX:
            self._phases.append({"name": self._phase, "duration_s": round(now - self._since, 6)})
        self._since = now

    def _said(self, outcome: str) -> dict[str, Any]:
        lasted = round(self._operations.clock() - self._began, 6)
        phases = [dict(one) for one in self._phases]
        return {
            **self._head,
            "phase": self._phase,
            "phases": phases,
            "duration_s": lasted,
            "outcome": outcome,
        }


class _Nothing(Operation):
    """An operation that nobody follows."""

    def __init__(self) -> None:
        pass

    def __bool__(self) -> bool:
        return False

    def phase(self, name: str) -> None:
        return

    def end(self, outcome: str) -> None:
        return


NOTHING: Final = _Nothing()


class Operations:
    """The operations of one process."""

    def __init__(
        self,
        on: bool = False,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.on, self.clock, self._wall = on, clock, wall
        self._open: dict[str, Operation] = {}
        self._notes: deque[dict[str, Any]] = deque(maxlen=NOTES_MAX)
        self._some = asyncio.Event()
        self._dropped = 0

    def begin(
        self, kind: Kind, name: str, phase: str, *, age_s: float = 0.0, **subject: str | int
    ) -> Operation:
        """Follows an operation, in place of an earlier one of this kind and name."""
        if not self.on:
            return NOTHING
        if len(self._open) >= OPEN_MAX:
            del self._open[next(iter(self._open))]
        ident = f"{kind}:{name}" if name else kind
        head = {
            "operation_id": ident,
            "kind": kind,
            "subject": subject,
            "started_at": self._wall() - age_s,
        }
        operation = self._open[ident] = Operation(self, head, phase, max(0.0, age_s), self.clock())
        self.note(operation._said(""))
        return operation

    def of(self, kind: Kind, name: str = "") -> Operation:
        """The operation of this kind and name that is under way; without one `NOTHING`, which is false."""
        return self._open.get(f"{kind}:{name}" if name else kind, NOTHING)

    def over(self, operation: Operation) -> None:
        """Follows it no longer."""
        if self._open.get(operation.ident) is operation:
            del self._open[operation.ident]

    def note(self, said: dict[str, Any]) -> None:
        """Keeps what an operation says of itself until it is handed over."""
        self._dropped += len(self._notes) == NOTES_MAX
        self._notes.append(said)
        self._some.set()

    async def hand_over(self, hub: Hub) -> None:
        """Gives the notes to the BACKBEAT client as they come, until cancelled; returns at once when off."""
        wait = AGAIN_FIRST_S
        while self.on:
            if not self._notes:
                self._some.clear()
                await self._some.wait()
            batch = [self._notes.popleft() for _ in range(min(BATCH_MAX, len(self._notes)))]
            try:
                head = {"dropped": self._dropped}
                await hub.call_service(SERVICE, NOTE, head, orjson.dumps(batch), timeout=CALL_S)
            except HubError:
                # The client's process starts, or starts anew. Newer notes are worth more than these.
                room = NOTES_MAX - len(self._notes)
                self._dropped += max(0, len(batch) - room)
                self._notes.extendleft(reversed(batch[max(0, len(batch) - room) :]))
                await asyncio.sleep(wait)
                wait = min(2 * wait, AGAIN_MAX_S)
                continue
            self._dropped, wait = self._dropped - head["dropped"], AGAIN_FIRST_S

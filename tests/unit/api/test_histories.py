"""Whatever became of a task, its story is whole from every place: generated histories over a real table.

The executors are real journals and output services; what happens to them, and when, a seed decides.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from chorus.api.context import Context
from chorus.api.story import Story, parse_place
from chorus.api.teller import Event, place_of
from chorus.executor.journal import Journal, attempt_folder
from chorus.executor.output_service import OutputService
from chorus.hub import HubNotFound, Request
from chorus.table.entries import Entry
from chorus.table.reader import TableReader
from chorus.table.rows import OPEN_ATTEMPTS
from chorus.table.store import TableStore
from chorus.testing.fake_hub import FakeMesh

TASK_ID = "01J00000000000000000000001"
T0 = 1_700_000_000_000
A, B, C = "peer-a", "peer-b", "peer-c"
DEADLINE_S = 60.0
OPERATIONS = (
    *("award", "award", "claim", "claim", "claim", "started", "output", "output", "output", "end", "end"),
    *("result", "result", "release", "reoffer", "decline", "cancel", "retry", "retry", "expire", "die"),
)


@dataclass
class History:
    """One task's table and executors, and what is done to them."""

    folder: Path
    chance: random.Random
    stamp: int = T0
    index: int = 0
    journals: dict[int, Journal] = field(default_factory=dict)
    # Results that count and whose `end` is not told yet.
    ends: dict[int, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    # The executors' own tables do not show that attempts end.
    behind: bool = False

    async def begin(self, start_by: bool) -> None:
        self.store = TableStore(self.folder / "table.sqlite")
        self.table = TableReader(self.folder / "table.sqlite")
        self.mesh = FakeMesh()
        self.mesh.found("a", None, "b", "c")
        self.context = Context(None, None, self.mesh.hub("a", "api"), self.table, None)  # type: ignore[arg-type]
        for name in "bc":
            output = OutputService(
                self.folder / name,
                lambda _, number: self.journals.get(number),
                self._is_over,
                lambda peer: peer in (A, B, C),
            )
            await self.mesh.hub(name, "executor").offer("output", _nothing, peers=True, streams=output.stream)
        self.say("found", A, mesh="m", settings={}, agent={"agent_id": "a"})
        self.say("leader", A, term=1)
        for peer in (B, C):
            self.say("join", A, peer=peer, agent_id=peer[-1])
        task: dict[str, Any] = {"title": "t", "commands": ["true"], "max_attempts": 2}
        if start_by:
            task["start_by"] = "2023-11-14T22:13:20Z"
        assert self.say("submit", A, task_id=TASK_ID, task=task, submitter=A, vouched_by=A)

    def say(self, type: str, author: str, **body: Any) -> bool:
        self.index += 1
        self.stamp += self.chance.choice((0, 1, 1000))
        entry = Entry(self.index, self.stamp, type, f"entry-{self.index}", author, self.index - 1, body)
        (outcome,) = self.store.apply_batch([entry])
        self.context.changes._wake([TASK_ID])
        return outcome.accepted

    def step(self, operation: str) -> None:
        """One thing that may happen now; what may not, the table refuses."""
        told = self.table.story(TASK_ID)
        assert told is not None
        newest = told.attempts[-1] if told.attempts else None
        number = newest.attempt if newest else 0
        agent = newest.agent if newest else B
        body = {"task_id": TASK_ID, "attempt": number}
        journal = self.journals.get(number)
        match operation:
            case "award":
                self.say("award", A, task_id=TASK_ID, attempt=number + 1, agent=self.chance.choice((B, C)))
            case "claim":
                if self.say("claim", agent, **body):
                    folder = attempt_folder(self.folder / agent[-1], TASK_ID, number)
                    self.journals[number] = Journal(folder, number)
                    self.journals[number].event("state", {"state": "claimed"})
            case "started":
                if journal is not None and self.say("started", agent, **body):
                    journal.event("state", {"state": "running"})
            case "output":
                for one in self.journals.values():
                    if not one.over:
                        one.output("stdout", 1, b"x", f"line {one.folder}")
            case "result" if journal is not None and not journal.over and number not in self.ends:
                outcome = "cancelled" if told.row.state == "cancelled" else None
                outcome = outcome or self.chance.choice(("completed", "failed", "failed", "failed"))
                if self.say("result", agent, **body, outcome=outcome, exit_code=1):
                    self.ends[number] = outcome
                else:
                    journal.event("state", {"state": "superseded"})
                    journal.close()
            case "end":
                self.tell_ends()
            case "release" if journal is not None and not journal.over and number not in self.ends:
                journal.event("state", {"state": "released"})
                journal.close()
                self.say("release", agent, **body, reason="r")
            case "reoffer":
                self.say("reoffer", A, **body, reason="lost")
            case "decline":
                self.say("decline", agent, **body, reason="full")
            case "cancel" | "retry" | "expire":
                self.say(operation, A, task_id=TASK_ID)
            case "die" if journal is not None and not journal.over and number not in self.ends:
                # Killed, and back without having been able to say anything.
                journal.close()
                if newest is not None and newest.state in OPEN_ATTEMPTS:
                    self.say("reoffer", A, **body)
            case _:
                pass

    def tell_ends(self) -> None:
        """Executors tell the results that count."""
        for number, outcome in list(self.ends.items()):
            del self.ends[number]
            self.journals[number].event("end", {"state": outcome, "exit_code": 1, "reason": "as it ended"})
            self.journals[number].close()

    def conclude(self) -> None:
        """The task ends, and everybody has said what there is to say."""
        self.tell_ends()
        told = self.table.story(TASK_ID)
        assert told is not None
        if told.row.open:
            self.say("cancel", A, task_id=TASK_ID)
        for journal in self.journals.values():
            if not journal.over:
                journal.event("state", {"state": "superseded"})
                journal.close()
        self.context.changes._wake([TASK_ID])

    def lose(self, name: str) -> None:
        """An agent that never comes back."""
        self.mesh.cut("a", name)
        self.gone.add(name)

    def _is_over(self, task_id: str, number: int) -> bool:
        ended = any(a.attempt == number and not a.open for a in self.table.attempts(task_id))
        return ended and not self.behind

    async def read(self, last: str = "") -> list[Event]:
        """All events after that id to the end."""
        found: list[Event] = []
        async with asyncio.timeout(DEADLINE_S):
            async for batch in Story(self.context, TASK_ID, parse_place(last)).events():
                assert batch
                found += batch
        return found

    def close(self) -> None:
        self.store.close()
        self.table.close()


async def _nothing(request: Request) -> dict[str, Any]:
    raise HubNotFound(request.method)


async def _follow(history: History, seen: list[Event], over: asyncio.Event) -> None:
    """A reader that comes back after each end, as long as the task may be tried again."""
    last = ""
    while not over.is_set():
        async for batch in Story(history.context, TASK_ID, parse_place(last)).events():
            seen += batch
            last = next((event.id for event in reversed(batch) if event.id), last)
        await asyncio.sleep(0)
    for event in await history.read(last):
        seen.append(event)


def check_whole(history: History, whole: list[Event]) -> None:
    """Ascending without gaps, one end, and everything that a living executor kept."""
    assert [event.event for event in whole].count("end") == 1
    row = history.table.task(TASK_ID)
    assert row is not None
    assert (whole[-1].event, whole[-1].data["state"]) == ("end", row.state)
    numbers: dict[int, list[int]] = {}
    for event in whole:
        if event.id is not None:
            place = place_of(event.id)
            assert place is not None
            numbers.setdefault(place.attempt, []).append(place.n)
    assert list(numbers) == sorted(numbers)
    for found in numbers.values():
        assert found == list(range(1, len(found) + 1))
    told = {event.id: event for event in whole}
    for number, journal in history.journals.items():
        if journal.folder.parts[-3] in history.gone:
            continue
        for line in (journal.folder / "events.jsonl").read_bytes().splitlines():
            kept = orjson.loads(line)
            assert told[kept["id"]].event in (kept["event"], "state"), number


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus.api.story.RETRY_FIRST_S", 0.001)
    monkeypatch.setattr("chorus.api.story.RETRY_MAX_S", 0.002)
    monkeypatch.setattr("chorus.api.teller.LOOK_AGAIN_S", 1.0)


@pytest.mark.parametrize("seed", range(60))
async def test_every_place_leads_to_the_same_end(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    history = History(tmp_path, chance)
    await history.begin(start_by=chance.random() < 0.3)
    seen: list[Event] = []
    over = asyncio.Event()
    live = asyncio.create_task(_follow(history, seen, over))
    loses = chance.random() < 0.3
    for _ in range(chance.randrange(5, 60)):
        history.step(chance.choice(OPERATIONS))
        if loses and chance.random() < 0.05:
            history.lose(chance.choice("bc"))
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
    history.conclude()
    over.set()
    async with asyncio.timeout(DEADLINE_S):
        await live
    whole = await history.read()
    check_whole(history, whole)
    for place, event in enumerate(whole):
        if event.id is not None:
            assert await history.read(event.id) == whole[place + 1 :], event.id
    if not history.gone:
        assert all(event.id for event in whole)
        # Who was there all along saw the same, but for an end after which the task was tried again.
        names = {event.id: event.event for event in whole}
        numbered = [event for event in seen if event.id is not None]
        assert [event.id for event in numbered] == [event.id for event in whole]
        assert all(e.event == names[e.id] or (e.event, names[e.id]) == ("end", "state") for e in numbered)
    history.close()


async def _told(tmp_path: Path, *steps: str, start_by: bool = False, seed: int = 0) -> list[str]:
    history = History(tmp_path, random.Random(seed))
    await history.begin(start_by)
    for step in steps:
        history.step(step)
    whole = await history.read()
    check_whole(history, whole)
    history.close()
    return [f"{event.id} {event.event} {event.data.get('state', '')}".strip() for event in whole]


async def test_tried_again_and_cancelled_before_an_award(tmp_path: Path) -> None:
    steps = ("award", "claim", "started", "cancel", "result", "end", "retry", "cancel")
    assert await _told(tmp_path, *steps) == [
        "0-1 state announced",
        "1-1 state claimed",
        "1-2 state running",
        "1-3 state cancelled",
        "1-4 state announced",
        "1-5 end cancelled",
    ]


async def test_expired_and_tried_again_and_cancelled(tmp_path: Path) -> None:
    assert await _told(tmp_path, "expire", "retry", "cancel", start_by=True) == [
        "0-1 state announced",
        "0-2 state expired",
        "0-3 state announced",
        "0-4 end cancelled",
    ]


async def test_declined_and_given_back_before_the_claim_and_expired(tmp_path: Path) -> None:
    steps = ("award", "decline", "award", "reoffer", "expire")
    assert await _told(tmp_path, *steps, start_by=True) == [
        "0-1 state announced",
        "1-1 state announced",
        "1-2 state announced",
        "2-1 state announced",
        "2-2 state announced",
        "2-3 end expired",
    ]


async def test_released_and_then_cancelled(tmp_path: Path) -> None:
    assert await _told(tmp_path, "award", "claim", "release", "cancel") == [
        "0-1 state announced",
        "1-1 state claimed",
        "1-2 state released",
        "1-3 state announced",
        "1-4 end cancelled",
    ]


async def test_lost_with_an_agent_that_is_gone_for_good(tmp_path: Path) -> None:
    history = History(tmp_path, random.Random(1))
    await history.begin(start_by=False)
    for step in ("award", "claim", "started"):
        history.step(step)
    (attempt,) = history.table.attempts(TASK_ID)
    history.lose(attempt.agent[-1])
    history.step("reoffer")
    told = []
    async with asyncio.timeout(DEADLINE_S):
        async for batch in Story(history.context, TASK_ID, parse_place("")).events():
            told += [(event.id, event.event, event.data.get("state")) for event in batch]
            if told[-1] == (None, "state", "announced"):
                history.step("cancel")
    assert told == [
        ("0-1", "state", "announced"),
        (None, "gap", None),
        (None, "state", "announced"),
        (None, "end", "cancelled"),
    ]
    history.close()


async def test_an_executor_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    history = History(tmp_path, random.Random(1))
    await history.begin(start_by=False)
    for step in ("award", "claim", "output", "cancel"):
        history.step(step)
    # Its journal stays open: the agent is there, and says nothing.
    told = [(event.id, event.event) for event in await history.read()]
    assert told == [("0-1", "state"), ("1-1", "state"), ("1-2", "output"), (None, "gap"), (None, "end")]
    history.close()


async def test_an_executor_whose_table_stays_behind_does_not_either(tmp_path: Path) -> None:
    history = History(tmp_path, random.Random(1), behind=True)
    await history.begin(start_by=False)
    for step in ("award", "claim", "release", "cancel"):
        history.step(step)
    told = [(event.id, event.event) for event in await history.read()]
    assert told == [
        ("0-1", "state"),
        ("1-1", "state"),
        ("1-2", "state"),
        (None, "gap"),
        (None, "state"),
        (None, "end"),
    ]
    history.close()

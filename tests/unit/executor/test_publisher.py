"""What follows a result, once, however often the process is killed on the way."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from chorus.config.load import load_settings
from chorus.executor import summary
from chorus.executor.journal import RECORD_FILE, Journal, attempt_folder
from chorus.executor.outbox import Item, Outbox
from chorus.executor.publisher import Publisher
from chorus.executor.room import Room
from chorus.hub import HubError, Request
from chorus.process import Assignments
from chorus.process.logs import Logger
from chorus.table.entries import Result
from chorus.table.reader import TableReader
from chorus.testing.decided import Decided
from chorus.testing.fake_hub import FakeHub, FakeMesh
from chorus.wire.ids import new_id

TASK_ID = new_id()
DEADLINE_S = 60.0
BODY: dict[str, Any] = {
    "task_id": TASK_ID, "attempt": 1, "outcome": "completed", "reason": "", "exit_code": 0, "summary": "s",
    "commands": [], "artifacts": [], "usage": {}, "ended_by": "exit", "decision": None,
    "timings": {"pulling_s": 0.0, "running_s": 0.1},
}  # fmt: skip
FACTS: dict[str, Any] = {
    "task": {"title": "t", "project": ""}, "source_sha256": "", "source_kind": "", "image": "i",
    "image_digest": "", "mesh": "m",
}  # fmt: skip


class Killed(BaseException):
    """The process ends here."""


class Agent:
    """Lives of one executor's publisher over one disk, one log and one table."""

    def __init__(self, folder: Path) -> None:
        self.mesh = FakeMesh()
        self.mesh.found("a")
        self.settings = load_settings(
            {"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": "a", "CHORUS_DATA_DIR": str(folder)}
        )
        self.folder = attempt_folder(self.settings.paths.tasks, TASK_ID, 1)
        self.proposed: list[str] = []
        self.accepts = True

    async def begin(self) -> None:
        await self.mesh.hub("a", "coordinator").offer("coordinator", self._coordinator)

    async def _coordinator(self, request: Request) -> dict[str, Any]:
        self.proposed.append(request.head["type"])
        return {"accepted": self.accepts, "reason": "" if self.accepts else "superseded: a newer attempt"}

    def room(self) -> Room:
        """A new life."""
        outbox = Outbox(self.settings.paths.executor_db)
        log = Logger(logging.getLogger("test-publisher"))
        hub: FakeHub = self.mesh.hub("a", "executor")
        none: Any = None
        return Room(
            self.settings,
            Assignments(self.settings.assignment),
            hub,
            none,
            none,
            outbox,
            none,
            none,
            none,
            none,
            log,
        )

    def logged(self) -> list[str]:
        return [entry["type"] for entry in self.mesh.agents["a"].log]

    def told(self) -> list[str]:
        return [orjson.loads(line)["event"] for line in (self.folder / "events.jsonl").open("rb")]


@pytest.fixture
async def agent(tmp_path: Path) -> Agent:
    agent = Agent(tmp_path)
    await agent.begin()
    room = agent.room()
    room.outbox.put(Item(TASK_ID, 1, "result", new_id(), BODY, FACTS))
    room.outbox.close()
    return agent


async def settle(room: Room) -> None:
    publisher = Publisher(room)
    publisher.resume()
    await publisher.settle(DEADLINE_S)
    assert publisher.pending == 0


async def test_a_later_attempt_supersedes_the_earlier_ones(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    await agent.begin()
    table = Decided(agent.settings.paths.table_db, agent.mesh)
    task_id = table.attempt("b", outcome="failed")
    first = table.decide("b", task_id)
    assert table.say("a", "retry", task_id=task_id).accepted
    room = agent.room()
    room.table = TableReader(agent.settings.paths.table_db)
    body = {
        **BODY,
        "task_id": task_id,
        "attempt": 2,
        "context": ["ucxl://x:agent@chorus:t/*^/1/decision.json"],
    }
    room.outbox.put(Item(task_id, 2, "result", new_id(), body, FACTS))
    await settle(room)
    path = attempt_folder(agent.settings.paths.tasks, task_id, 2) / RECORD_FILE
    record = orjson.loads(path.read_bytes())
    listed = room.table.decision(first)
    assert listed is not None
    assert record["links"]["supersedes"] == [listed.address]
    assert record["inputs"]["context"] == body["context"]


STEPS = ("log_info", "dht_put", "publish", "log_append", "advance", "done")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("time", [1, 2])
async def test_killed_at_any_step(agent: Agent, step: str, time: int, after: bool) -> None:
    room = agent.room()
    owner: Any = room.outbox if step in ("advance", "done") else room.hub
    original, calls = getattr(owner, step), 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        return calls == time

    async def dying(*args: Any, **named: Any) -> Any:
        mine = count()
        if mine and not after:
            raise Killed
        answer = await original(*args, **named)
        if mine:
            raise Killed
        return answer

    def dying_at_once(*args: Any) -> None:
        mine = count()
        if mine and not after:
            raise Killed
        original(*args)
        if mine:
            raise Killed

    setattr(owner, step, dying_at_once if owner is room.outbox else dying)
    room.log = Logger(logging.getLogger("test-publisher"))
    publisher = Publisher(room)
    publisher.resume()
    (work,) = publisher._working.values()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait((work,))
    if not work.cancelled():
        work.exception()
    room.outbox.close()

    room = agent.room()
    await settle(room)
    assert room.outbox.items() == []
    assert agent.logged() == ["decision_published", "task_completed"]
    assert agent.told() == ["end"]
    record = (agent.folder / RECORD_FILE).read_bytes()
    assert orjson.loads(record)["task_id"] == TASK_ID
    assert len(agent.mesh.records) == 1
    assert not list(agent.folder.glob("*.new"))
    room.outbox.close()


async def test_an_end_that_was_told_is_not_told_again(agent: Agent) -> None:
    journal = Journal(agent.folder, 1)
    journal.event("end", {"state": "completed"})
    journal.close()
    room = agent.room()
    await settle(room)
    assert agent.told() == ["end"]
    assert room.journals == {}
    room.outbox.close()


async def test_a_disk_that_is_full_for_a_while(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus.executor.publisher._RETRY_FIRST_S", 0.01)
    room = agent.room()
    advance, done, failures = room.outbox.advance, room.outbox.done, [0, 0]

    def fail(which: int) -> None:
        failures[which] += 1
        if failures[which] < 3:
            raise sqlite3.OperationalError("database or disk is full")

    def advance_later(*args: Any) -> None:
        fail(0)
        advance(*args)

    def done_later(*args: Any) -> None:
        fail(1)
        done(*args)

    monkeypatch.setattr(room.outbox, "advance", advance_later)
    monkeypatch.setattr(room.outbox, "done", done_later)
    await settle(room)
    assert failures == [3, 3]
    assert agent.logged() == ["decision_published", "task_completed"]
    room.outbox.close()


async def test_a_superseded_result_leaves_the_outbox(agent: Agent) -> None:
    agent.accepts = False
    room = agent.room()
    await settle(room)
    assert room.outbox.items() == []
    assert agent.told() == ["state"]
    assert agent.logged() == []
    room.outbox.close()


def test_a_bare_result_fits_whatever_the_whole_one_said() -> None:
    whole = {
        **BODY, "exit_code": 2**70, "reason": "x" * 2000, "artifacts": [{}], "commands": [{}],
        "usage": {"A": "b"}, "timings": {"pulling_s": -1.0, "running_s": 0.1},
    }  # fmt: skip
    kept = Result.model_validate(summary.bare(whole, "the body does not fit: artifacts"))
    assert (kept.outcome, kept.exit_code, len(kept.reason)) == (BODY["outcome"], None, 2000)


@pytest.mark.parametrize(
    "why", ["the body does not fit: artifacts: not a value of this field", "an entry of"]
)
async def test_a_result_that_does_not_fit_is_said_without_its_details(agent: Agent, why: str) -> None:
    bodies: list[dict[str, Any]] = []

    async def coordinator(request: Request) -> dict[str, Any]:
        if request.head["type"] == "result":
            bodies.append(orjson.loads(request.payload))
            if bodies[-1]["artifacts"]:
                return {"accepted": False, "reason": why}
        return {"accepted": True}

    await agent.mesh.hub("a", "coordinator").offer("coordinator", coordinator)
    room = agent.room()
    room.outbox.put(Item(TASK_ID, 1, "result", new_id(), {**BODY, "artifacts": [{}]}, FACTS))
    await settle(room)
    first, less = bodies
    assert less["artifacts"] == []
    assert (less["outcome"], less["exit_code"]) == (first["outcome"], first["exit_code"])
    assert why in less["reason"]
    # Everything that follows a result follows this one.
    assert agent.logged() == ["decision_published", "task_completed"]
    assert agent.told() == ["end"]
    assert room.outbox.items() == []
    room.outbox.close()


async def test_a_list_that_nothing_names_yet_is_kept(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mesh is without a leader, for longer than blobs stay that nobody needs."""
    monkeypatch.setattr("chorus.executor.publisher._KEEP_EVERY_S", 0.0)
    leader, kept = asyncio.Event(), asyncio.Event()
    named: list[str] = []

    async def coordinator(request: Request) -> dict[str, Any]:
        await leader.wait()
        return {"accepted": False, "reason": "superseded"}

    class Blobs:
        async def keep(self, sha256: str) -> bool:
            named.append(sha256)
            if len(named) == 3:
                kept.set()
            return True

    await agent.mesh.hub("a", "coordinator").offer("coordinator", coordinator)
    room = agent.room()
    blobs: Any = Blobs()
    room.blobs = blobs
    body = {**BODY, "artifacts_blob": {"sha256": "1" * 64, "size": 1, "count": 1}}
    item = Item(TASK_ID, 1, "result", new_id(), body, FACTS)
    room.outbox.put(item)
    publisher = Publisher(room)
    publisher.publish(item, None)
    async with asyncio.timeout(DEADLINE_S):
        await kept.wait()
        leader.set()
        await publisher.settle(DEADLINE_S)
    assert set(named) == {"1" * 64}
    count = len(named)
    await asyncio.sleep(0)
    assert len(named) == count
    room.outbox.close()


async def test_the_dht_away_repeats_nothing_in_the_log(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus.executor.publisher._RETRY_FIRST_S", 0.01)
    room = agent.room()
    append, failed = room.hub.log_append, 0

    async def lost(type: str, data: Any) -> int:
        nonlocal failed
        seq = await append(type, data)
        if failed < 3:
            # It is on the disk, and the answer did not come back.
            failed += 1
            raise HubError("the connection is gone", code="closed")
        return seq

    monkeypatch.setattr(room.hub, "log_append", lost)
    await settle(room)
    assert agent.logged() == ["decision_published", "task_completed"]
    room.outbox.close()

"""What processes note of their operations, and how it gets to the client without anybody waiting."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, cast

import orjson

from chorus.hub import Hub, HubUnavailable
from chorus.telemetry.claims import CLAIMS_MAX, Note, Work, claim_of
from chorus.telemetry.operations import NOTES_MAX, NOTHING, Operations


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Taking:
    """The client's side of the hub: away at first if asked to."""

    def __init__(self, away: int = 0) -> None:
        self.away, self.notes, self.dropped = away, [], 0
        self.came = asyncio.Event()

    async def call_service(
        self, service: str, method: str, head: Any, payload: bytes, timeout: float
    ) -> None:
        if self.away:
            self.away -= 1
            raise HubUnavailable("nobody offers it")
        assert (service, method) == ("api", "backbeat.note")
        self.notes += [Note.model_validate(one) for one in orjson.loads(payload)]
        self.dropped += head["dropped"]
        self.came.set()


async def taken(operations: Operations, hub: Taking, count: int) -> list[Note]:
    work = asyncio.create_task(operations.hand_over(cast(Hub, hub)))
    async with asyncio.timeout(60):
        while len(hub.notes) < count:
            hub.came.clear()
            await hub.came.wait()
    work.cancel()
    return hub.notes


async def test_each_phase_is_told_with_its_duration() -> None:
    clock = Clock()
    operations = Operations(True, clock=clock, wall=lambda: 1000.0)
    operations.begin("task", "A:1", "waiting", age_s=3.0, task_id="A", attempt=1)
    operations.of("task", "A:1").phase("pulling")
    clock.now += 2
    operations.of("task", "A:1").phase("running")
    operations.of("task", "A:1").phase("running")
    clock.now += 5
    operation = operations.of("task", "A:1")
    operation.end("completed")
    # What comes after the end is not told.
    operation.phase("publishing")
    operation.end("failed")
    assert operations.of("task", "A:1") is NOTHING
    notes = await taken(operations, Taking(away=1), 4)
    assert [(note.phase, note.outcome) for note in notes] == [
        ("waiting", ""),
        ("pulling", ""),
        ("running", ""),
        ("", "completed"),
    ]
    last = notes[-1]
    phases = [(phase.name, phase.duration_s) for phase in last.phases]
    assert phases == [("waiting", 3.0), ("pulling", 2.0), ("running", 5.0)]
    assert (last.duration_s, last.started_at, last.subject) == (10.0, 997.0, {"task_id": "A", "attempt": 1})


async def test_an_operation_begun_anew_is_not_ended_by_the_old_one() -> None:
    operations = Operations(True)
    old = operations.begin("election", "", "leaderless")
    new = operations.begin("election", "", "leaderless")
    old.end("leading")
    assert operations.of("election") is new


async def test_what_nobody_takes_is_bounded_and_the_oldest_goes() -> None:
    operations = Operations(True)
    for number in range(NOTES_MAX + 10):
        operations.begin("task", str(number), "waiting")
    hub = Taking(away=2)
    notes = await taken(operations, hub, NOTES_MAX)
    assert len(notes) + hub.dropped == NOTES_MAX + 10
    assert notes[-1].operation_id == f"task:{NOTES_MAX + 9}"


async def test_off_means_that_nothing_is_kept() -> None:
    operations = Operations(False)
    assert operations.begin("task", "A:1", "waiting") is NOTHING
    NOTHING.phase("running")
    NOTHING.end("completed")
    await operations.hand_over(cast(Hub, Taking()))


def test_off_means_that_nothing_is_loaded() -> None:
    program = (
        "import sys, chorus.api.service, chorus.executor.service, chorus.coordinator.service\n"
        "sys.exit(bool({'chorus.telemetry.client', 'chorus.telemetry.frames', 'nats'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def note(task: str, phase: str, outcome: str = "", kind: str = "task") -> Note:
    return Note(
        operation_id=f"{kind}:{task}",
        kind=kind,
        subject={"task_id": task},
        started_at=0.0,
        phase=phase,
        phases=(),
        duration_s=0.0,
        outcome=outcome,
    )


def test_work_is_claimed_by_its_phase_and_without_any_the_agent_is_idle() -> None:
    work = Work()
    assert [claim["state"] for claim in work.claims()] == ["idle"]
    for phase, state in (
        ("waiting", "blocked"),
        ("pulling", "planning"),
        ("running", "executing"),
        ("publishing", "reviewing"),
    ):
        work.take(note("A", phase))
        work.take(note("B", "election", kind="election"))
        assert [(claim["task_id"], claim["state"]) for claim in work.claims()] == [("A", state)]
    work.take(note("A", "", "completed"))
    assert [claim["state"] for claim in work.claims()] == ["idle"]
    ends = {"completed": "completed", "failed": "failed", "cancelled": "failed", "released": "blocked"}
    assert {outcome: claim_of(note("A", "", outcome))["state"] for outcome in ends} == ends


def test_so_many_are_claimed_at_one_beat() -> None:
    work = Work()
    for number in range(1000):
        work.take(note(str(number), "running"))
    assert len(work.claims()) == CLAIMS_MAX

"""What tasks that have ended left goes in time, whole and never too early, through any kill."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from chorus.config.load import load_settings
from chorus.executor import retention as module
from chorus.executor.journal import ARTIFACT_FOLDER, EVENTS, RECORD_FILE, attempt_folder, record_aside
from chorus.executor.output_service import OutputService
from chorus.executor.retention import REMOVING, SCRATCH, UNKNOWN_MS, Retention, may_go
from chorus.executor.room import Room
from chorus.hub import HubNotFound
from chorus.process.logs import Logger
from chorus.table.rows import TaskEnd
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.ids import new_id

DAY_MS = 86_400_000
NOW = 1_800_000_000_000
DEADLINE_S = 60.0


class Killed(BaseException):
    """The process ends here."""


class Table:
    """The ends of the tasks that it knows."""

    def __init__(self) -> None:
        self.ends: dict[str, TaskEnd] = {}
        self.lags = False

    def applied(self) -> int:
        return -1 if self.lags else 1_000_000

    def task_end(self, task_id: str) -> TaskEnd | None:
        return self.ends.get(task_id)

    def close(self) -> None:
        pass


class Agent:
    """One executor's disk, and what keeps it small."""

    def __init__(self, folder: Path) -> None:
        self.mesh = FakeMesh()
        self.mesh.found("a", {})
        environ = {"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": "a", "CHORUS_DATA_DIR": str(folder)}
        self.settings = load_settings({**environ, "CHORUS_RETENTION": "2d"})
        self.tasks = self.settings.paths.tasks
        self.table = Table()
        self.busy: set[str] = set()
        none: Any = None
        table: Any = self.table
        log = Logger(logging.getLogger("test-retention"))
        hub: Any = self.mesh.hub("a", "executor")
        self.room = Room(self.settings, none, hub, table, none, none, none, none, none, none, log)
        self.retention = self.begin()

    def begin(self) -> Retention:
        """A new life."""
        made = Retention(self.room, lambda: self.busy, wall_ms=lambda: NOW)
        made._reader = self.table  # type: ignore[assignment]
        return made

    def task(self, *, ended: int | None = None, removed: int | None = None, known: bool = True) -> str:
        """A task with an attempt on the disk; `ended` days ago."""
        task_id = new_id()
        folder = attempt_folder(self.tasks, task_id, 1)
        (folder / ARTIFACT_FOLDER).mkdir(parents=True)
        for name in (EVENTS, "stdout", f"{ARTIFACT_FOLDER}/00000"):
            (folder / name).write_bytes(b"x")
        (folder / RECORD_FILE).write_bytes(task_id.encode())
        os.utime(folder.parent, (NOW / 1000, NOW / 1000))
        if known:
            at = None if ended is None else NOW - ended * DAY_MS
            self.table.ends[task_id] = TaskEnd(at, removed)
        return task_id

    def there(self, task_id: str) -> bool:
        return (self.tasks / task_id).is_dir()

    def record(self, task_id: str) -> bytes:
        aside = record_aside(self.tasks, task_id, 1)
        return (
            aside if aside.exists() else attempt_folder(self.tasks, task_id, 1) / RECORD_FILE
        ).read_bytes()


@pytest.fixture
async def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


@pytest.mark.parametrize(
    ("end", "changed_ms", "goes"),
    [
        (TaskEnd(None, None), 0, False),
        (TaskEnd(NOW - 2 * DAY_MS, None), NOW, True),
        (TaskEnd(NOW - 2 * DAY_MS + 1, None), 0, False),
        (TaskEnd(NOW, NOW), NOW, True),
        # Tried again after it was removed by hand, in an older table.
        (TaskEnd(None, NOW), 0, False),
        (TaskEnd(NOW + DAY_MS, None), 0, False),
        (None, NOW - UNKNOWN_MS, True),
        (None, NOW - UNKNOWN_MS + 1, False),
    ],
)
def test_what_may_go(end: TaskEnd | None, changed_ms: int, goes: bool) -> None:
    assert may_go(end, now_ms=NOW, retention_ms=2 * DAY_MS, changed_ms=changed_ms) is goes


async def test_nothing_goes_while_tasks_of_an_earlier_mesh_are_still_being_brought(agent: Agent) -> None:
    stranger = agent.task(known=False)
    os.utime(agent.tasks / stranger, (0, 0))
    agent.settings.paths.carried.write_text("{}\n")
    assert await agent.retention.sweep() == []
    agent.settings.paths.carried.unlink()
    assert await agent.retention.sweep() == [stranger]


async def test_finished_tasks_go_after_their_time_and_records_stay(agent: Agent) -> None:
    old, young, still_open = agent.task(ended=3), agent.task(ended=1), agent.task()
    stranger = agent.task(known=False)
    (agent.tasks / "notes.txt").write_bytes(b"of somebody else")
    assert await agent.retention.sweep() == [old]
    assert not agent.there(old)
    assert all(map(agent.there, (young, still_open, stranger)))
    assert agent.record(old) == old.encode()
    assert not (agent.tasks / REMOVING).exists()
    assert (agent.tasks / "notes.txt").exists()
    assert await agent.retention.sweep() == []


async def test_what_is_worked_on_stays(agent: Agent) -> None:
    task_id = agent.task(ended=3)
    agent.busy.add(task_id)
    assert await agent.retention.sweep() == []
    agent.busy.clear()
    assert await agent.retention.sweep() == [task_id]


async def test_a_table_that_lags_removes_nothing(agent: Agent) -> None:
    agent.task(known=False)
    os.utime(agent.tasks / agent.task(known=False), (0, 0))
    agent.table.lags = True
    assert await agent.retention.sweep() == []
    agent.table.lags = False
    assert len(await agent.retention.sweep()) == 1


async def test_a_task_that_is_tried_again_meanwhile_stays(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = agent.task(ended=3)
    due = agent.retention._due

    def late() -> list[str]:
        found = due()
        agent.table.ends[task_id] = TaskEnd(None, None)
        return found

    monkeypatch.setattr(agent.retention, "_due", late)
    assert await agent.retention.sweep() == []
    assert agent.there(task_id)


@pytest.mark.parametrize("step", range(4))
async def test_a_kill_leaves_a_whole_folder_or_none(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Killed before each change of the disk: the record moves, the folder moves, its bytes go."""
    task_id = agent.task(ended=3)
    steps = iter(range(10))
    replace, rmtree = Path.replace, shutil.rmtree

    def counted(real: Any) -> Any:
        def change(*arguments: Any, **more: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return real(*arguments, **more)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted(replace))
        patch.setattr(module.shutil, "rmtree", counted(rmtree))
        try:
            await agent.retention.sweep()
        except Killed:
            pass
        else:
            assert step == 3
    folder = attempt_folder(agent.tasks, task_id, 1)
    if agent.there(task_id):
        assert (folder / EVENTS).exists()
        assert (folder / ARTIFACT_FOLDER / "00000").exists()
    assert agent.record(task_id) == task_id.encode()
    # The next life ends what was begun.
    await agent.begin().sweep()
    assert not agent.there(task_id)
    assert not (agent.tasks / REMOVING).exists()
    assert agent.record(task_id) == task_id.encode()


async def test_what_a_killed_life_unpacked_goes_once_its_task_has_ended(agent: Agent) -> None:
    done, running = agent.task(ended=1), agent.task()
    for task_id in (done, running):
        (attempt_folder(agent.tasks, task_id, 1) / SCRATCH).mkdir()
    await agent.retention.sweep()
    assert not (attempt_folder(agent.tasks, done, 1) / SCRATCH).exists()
    assert (attempt_folder(agent.tasks, running, 1) / SCRATCH).exists()


async def test_what_is_removed_by_hand_goes_at_once(agent: Agent) -> None:
    task_id, other = agent.task(ended=0), agent.task(ended=0)
    running = asyncio.create_task(agent.retention.run())
    news = agent.mesh.hub("a", "coordinator")
    agent.table.ends[task_id] = TaskEnd(NOW, NOW)
    async with asyncio.timeout(DEADLINE_S):
        while agent.there(task_id):
            # Until it listens.
            await news.publish_local("local/table", {"tasks": [task_id, other, "../..", 7], "applied": 1})
            await asyncio.sleep(0.01)
    assert agent.there(other)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_news_of_other_tasks_cost_no_look_at_the_disk(agent: Agent) -> None:
    task_id = agent.task(ended=0)
    looks = 0

    def busy() -> set[str]:
        nonlocal looks
        looks += 1
        return set()

    agent.retention._busy = busy
    running = asyncio.create_task(agent.retention.run())
    news = agent.mesh.hub("a", "coordinator")
    for _ in range(50):
        await news.publish_local("local/table", {"tasks": [task_id], "applied": 1})
        await asyncio.sleep(0)
    assert looks == 0
    assert agent.there(task_id)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_whoever_asks_for_it_is_told_why_it_is_gone(agent: Agent) -> None:
    task_id = agent.task(ended=3)
    await agent.retention.sweep()
    output = OutputService(agent.tasks, lambda *_: None, lambda *_: True, lambda _: True, lambda _: "why")

    class Asked:
        method = "artifacts"
        peer = None

        def __init__(self, task_id: str) -> None:
            self.head = {"task_id": task_id, "attempt": 1}

    with pytest.raises(HubNotFound, match=r"^gone: why$"):
        await output.handle(Asked(task_id))  # type: ignore[arg-type]

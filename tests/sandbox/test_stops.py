"""A stop takes effect at once: while an image is pulled, inputs are fetched, or files are sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from world import World

from chorus.executor import desk, workspace
from chorus.executor.backend import Limits, Sandbox, SandboxGone
from chorus.executor.docker.backend import DockerBackend
from chorus.testing.sandbox_contract import SMALL, bench, tar_of

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]
# A pull that never ends: whatever waits for it fails by this.
DEADLINE_S = 60.0


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands that reached a session."""
    from chorus.executor.docker.session import Session

    commands: list[str] = []
    run = Session.run

    async def noted(self: Session, number: int, command: str, workdir: str, stdin: str) -> Any:
        commands.append(command)
        return await run(self, number, command, workdir, stdin)

    monkeypatch.setattr(Session, "run", noted)
    return commands


async def pulling(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task whose image is pulled without end, by a claimed attempt."""

    async def never(self: DockerBackend, image: str) -> tuple[str, float]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(DockerBackend, "ensure_image", never)
    monkeypatch.setattr(desk, "PULL_PATIENCE_S", 0.05)
    assert world.executor
    world.executor.room.images.forget()
    task_id = await world.submit(commands=["echo never"])
    assert (await world.award(task_id))["accepted"]
    await world.until(task_id, lambda row: row.state == "claimed")
    return task_id


async def test_a_cancel_during_a_pull(world: World, monkeypatch: pytest.MonkeyPatch, sent: list[str]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        task_id = await pulling(world, monkeypatch)
        await world.propose("cancel", {"task_id": task_id, "by": "somebody"})
        row = await world.until(task_id, lambda row: row.result is not None)
        assert row.result is not None
        assert (row.state, row.result["outcome"], row.result["commands"]) == ("cancelled", "cancelled", [])
        assert world.executor
        assert await world.executor.desk.settle(DEADLINE_S)
    assert sent == []


@pytest.mark.parametrize("how", ["lost", "drain"])
async def test_a_lost_lease_or_a_drain_during_a_pull(
    world: World, monkeypatch: pytest.MonkeyPatch, sent: list[str], how: str
) -> None:
    async with asyncio.timeout(DEADLINE_S):
        task_id = await pulling(world, monkeypatch)
        assert world.executor
        if how == "lost":
            world.executor.desk.stop_all("lost", "out of touch")
        else:
            done = await world.client.call_service("executor", "drain", {"deadline_s": DEADLINE_S})
            assert done.head["done"]
        row = await world.until(task_id, lambda row: row.lost == 1)
        assert row.reason == ("out of touch" if how == "lost" else "this agent is about to stop")
    assert sent == []


async def test_a_cancel_while_inputs_are_fetched(
    world: World, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    fetching = asyncio.Event()

    async def never(*_: Any) -> None:
        fetching.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(workspace.Sources, "prepare", never)
    async with asyncio.timeout(DEADLINE_S):
        source = {"kind": "inline", "files": {"a": "b"}}
        task_id = await world.submit(commands=["echo never"], source=source)
        assert (await world.award(task_id))["accepted"]
        await fetching.wait()
        await world.propose("cancel", {"task_id": task_id, "by": "somebody"})
        row = await world.until(task_id, lambda row: row.result is not None)
    assert row.state == "cancelled"
    assert sent == []


async def test_a_stop_right_before_the_first_command(
    world: World, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    from chorus.executor.docker.sandbox import DockerSandbox

    begin = DockerSandbox.begin

    async def stopped(self: DockerSandbox, *arguments: Any) -> None:
        await begin(self, *arguments)
        assert world.executor
        world.executor.desk.stop_all("lost", "out of touch")

    monkeypatch.setattr(DockerSandbox, "begin", stopped)
    async with asyncio.timeout(DEADLINE_S):
        task_id = await world.submit(commands=["echo never"])
        assert (await world.award(task_id))["accepted"]
        await world.until(task_id, lambda row: row.lost == 1)
    assert sent == []


async def test_a_stop_does_not_break_into_a_file(acquire: Acquire, tmp_path: Path) -> None:
    """The session would read the stop as a part of the file."""
    box = await bench(acquire, SMALL)
    session = box.sandbox.session  # type: ignore[attr-defined]
    sending = asyncio.Event()
    loop = asyncio.get_running_loop()
    send = session._channel.write_wait

    def slowly(data: bytes, timeout_s: float) -> None:
        send(data, timeout_s)
        loop.call_soon_threadsafe(sending.set)

    session._channel.write_wait = slowly
    archive = tar_of(tmp_path, {"data": os.urandom(40 << 20)})
    putting = asyncio.create_task(box.sandbox.put(archive))
    async with asyncio.timeout(DEADLINE_S):
        await sending.wait()
        await box.sandbox.stop("cancel")
        with pytest.raises(SandboxGone):
            await putting

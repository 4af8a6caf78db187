"""What is done to a sandbox from outside is the mesh's loss; what its task does is the task's own end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import docker
import pytest
from world import World

from chorus.executor.backend import Limits, Sandbox, SandboxError, SandboxLost
from chorus.executor.docker import session
from chorus.executor.docker.backend import DockerBackend
from chorus.testing.sandbox_contract import COMMAND_DEADLINE_S, SMALL, Collected, bench

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]


async def from_outside(container: str, what: str) -> None:
    """One of the things that people and programs do to containers."""
    found = await asyncio.to_thread(docker.from_env().containers.get, container)
    deeds: dict[str, Callable[[], Any]] = {
        "kill": found.kill,
        "remove": lambda: found.remove(force=True),
        "stop": lambda: found.stop(timeout=1),
        "restart": lambda: found.restart(timeout=1),
        "pause": found.pause,
    }
    await asyncio.to_thread(deeds[what])


@pytest.mark.parametrize("what", ["kill", "remove", "stop", "restart", "pause"])
async def test_a_command_under_way(
    backend: DockerBackend, image: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(session, "_SILENCE_S_MIN", 3.0)
    sandbox = await backend.acquire(image, SMALL, 3.0)
    sink = Collected()
    await sandbox.begin({}, {}, sink)
    running = asyncio.create_task(sandbox.run(1, "echo on; sleep 1000"))
    async with asyncio.timeout(COMMAND_DEADLINE_S):
        await sink.wrote.wait()
        await from_outside(sandbox.container, what)
        with pytest.raises(SandboxLost, match="from outside"):
            await running
    await sandbox.close()


async def test_a_connection_that_breaks(acquire: Acquire) -> None:
    """The daemon lives, the session's connection does not: a proxy between was restarted."""
    box = await bench(acquire)
    running = asyncio.create_task(box.sandbox.run(1, "echo on; sleep 1000"))
    async with asyncio.timeout(COMMAND_DEADLINE_S):
        await box.sink.wrote.wait()
        box.sandbox.session._channel._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        with pytest.raises(SandboxLost, match="cut off"):
            await running


async def test_our_own_kill_is_no_loss(acquire: Acquire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that the session does not carry out ends by the daemon, as what it was asked for."""
    box = await bench(acquire)
    running = asyncio.create_task(box.sandbox.run(1, "echo on; sleep 1000"))
    async with asyncio.timeout(COMMAND_DEADLINE_S):
        await box.sink.wrote.wait()
        monkeypatch.setattr(box.sandbox.session, "stop", lambda: None)  # type: ignore[attr-defined]
        await box.sandbox.stop("timeout")
        end = await running
    assert (end.exit_code, end.ended_by) == (137, "timeout")


# ---- a whole task ----------------------------------------------------------------------------------


async def lose(world: World, task_id: str, attempt: int) -> None:
    """Runs one attempt and kills its container."""
    assert (await world.award(task_id))["accepted"]
    await world.until(task_id, lambda row: row.state == "running" and row.attempt == attempt)
    assert world.executor
    [running] = world.executor.desk.attempts.values()
    assert running._runner
    await from_outside(running._runner._sandbox.container, "kill")  # type: ignore[attr-defined]
    await world.until(task_id, lambda row: row.lost == attempt)


async def test_a_killed_sandbox_is_tried_again_up_to_its_attempts(world: World) -> None:
    task_id = await world.submit(commands=["sleep 1000"], max_attempts=2)
    await lose(world, task_id, 1)
    assert world.row(task_id).open
    assert "killed from outside" in world.row(task_id).reason
    await lose(world, task_id, 2)
    row = world.row(task_id)
    assert (row.state, row.attempt) == ("failed", 2)
    assert row.result is not None
    assert (row.result["ended_by"], row.result["exit_code"]) == ("lost", None)


async def test_a_kill_after_the_commands_ended_takes_nothing_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chorus.executor.docker.sandbox import DockerSandbox

    usage = DockerSandbox.usage

    async def killed(self: DockerSandbox) -> Any:
        with contextlib.suppress(SandboxError):
            await self._engine.kill(self.container)
        return await usage(self)

    monkeypatch.setattr(DockerSandbox, "usage", killed)
    row = await world.run(commands=["true"])
    assert (row.state, row.attempt) == ("completed", 1)

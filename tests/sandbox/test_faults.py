"""Docker and the session fail in every way we know: nothing hangs, everything has a name."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import docker
import pytest
from proxy import DockerProxy
from world import World, eventually, stand_in_core

from chorus.executor.backend import BackendUnavailable, Limits, Sandbox, SandboxGone, SandboxLost
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SMALL, Collected, bench

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]


async def gone(container: str) -> None:
    """Waits until a container does not run any more."""
    client = docker.from_env()
    async with asyncio.timeout(60):
        while True:
            try:
                if client.containers.get(container).status != "running":
                    return
            except docker.errors.NotFound:
                return
            await asyncio.sleep(0.05)


async def test_without_its_session_a_sandbox_ends(acquire: Acquire) -> None:
    box = await bench(acquire)
    running = asyncio.create_task(box.sandbox.run(1, "sleep 1000"))
    await asyncio.sleep(0.2)
    client = docker.from_env()
    container = client.containers.get(box.sandbox.container)  # type: ignore[attr-defined]
    top = container.top(ps_args="-o pid,args")["Processes"]
    sessions = [int(row[0]) for row in top if "session 30.000" in row[1]]
    os.kill(min(sessions), signal.SIGKILL)
    with pytest.raises(SandboxGone):
        await running
    await gone(box.sandbox.container)  # type: ignore[attr-defined]


async def test_without_keep_alives_a_sandbox_ends(backend: DockerBackend, image: str) -> None:
    sandbox = await backend.acquire(image, SMALL, 1.5)
    await sandbox.begin({}, {}, Collected())
    # The executor hangs: the connection stands, and nothing comes over it.
    sandbox.session._keepalive.cancel()
    with pytest.raises(SandboxLost, match="nothing came over it for a lease"):
        await sandbox.run(1, "sleep 1000")
    await gone(sandbox.container)
    await sandbox.close()


async def test_keep_alives_carry_a_long_command_over_many_leases(backend: DockerBackend, image: str) -> None:
    sandbox = await backend.acquire(image, SMALL, 1.5)
    await sandbox.begin({}, {}, Collected())
    assert (await sandbox.run(1, "sleep 4; echo done")).exit_code == 0
    await sandbox.close()


async def test_a_cut_connection_is_the_daemon(tmp_path: Path, image: str) -> None:
    proxy = DockerProxy(tmp_path / "docker.sock")
    await proxy.start()
    made = DockerBackend(
        Engine(proxy.host, call_timeout_s=5), peer="test-cut", boot="b", default=SMALL, warm=0, lease_s=30
    )
    sandbox = await made.acquire(image, SMALL, 30)
    await sandbox.begin({}, {}, Collected())
    running = asyncio.create_task(sandbox.run(1, "sleep 1000"))
    await asyncio.sleep(0.2)
    await proxy.cut()
    with pytest.raises(BackendUnavailable):
        await running
    assert not (await made.state()).ok
    await gone(sandbox.container)
    await proxy.start()
    assert (await made.state()).ok
    await sandbox.close()
    await made.close()
    await proxy.cut()


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_a_lost_daemon_gives_tasks_back_and_recovers(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    stand_in_core(monkeypatch)
    proxy = DockerProxy(tmp_path / "docker.sock")
    await proxy.start()
    world = World(tmp_path / "data", image, docker_host=proxy.host)
    executor = await world.start()
    task_id = await world.submit(commands=["sleep 1000"], max_attempts=5)
    assert (await world.award(task_id))["accepted"]
    await world.until(task_id, lambda row: row.state == "running")
    if how == "cut":
        await proxy.cut()
    else:
        proxy.hang()
    row = await world.until(task_id, lambda row: row.lost == 1)
    assert "Docker" in row.reason
    await eventually(lambda: not executor.watch.state.ok)
    profile = (await world.client.call_service("executor", "profile")).head
    assert not profile["accepting"]
    assert "docker" in profile["reason"]
    assert not (await world.award(task_id))["accepted"]
    if how == "cut":
        await proxy.start()
    else:
        proxy.heal()
    await eventually(lambda: executor.watch.state.ok)
    assert (await world.client.call_service("executor", "profile")).head["accepting"]
    assert (await world.run(commands=["true"])).state == "completed"
    await world.stop()
    await proxy.cut()


async def test_a_warm_sandbox_is_taken_and_replaced(backend: DockerBackend, image: str) -> None:
    warm = DockerBackend(Engine(None), peer=backend._peer, boot="b", default=SMALL, warm=1, lease_s=30.0)
    warm.prewarm(image)
    await warm._pool.settled.wait()
    [ready] = warm._pool._ready[image]
    larger = Limits(2.0, SMALL.memory_bytes * 2, 64, SMALL.disk_bytes)
    taken = await warm.acquire(image, larger, 30.0)
    assert taken is ready
    await taken.begin({}, {}, Collected())
    assert (await taken.run(1, "head -c 150000000 /dev/zero | tail -c 1 > /dev/null")).exit_code == 0
    host = docker.from_env().containers.get(taken.container).attrs["HostConfig"]
    assert host["PidsLimit"] > SMALL.pids + 8
    assert host["Memory"] == host["MemorySwap"]
    other = await warm.acquire(image, Limits(1.0, SMALL.memory_bytes, 32, SMALL.disk_bytes // 2), 30.0)
    assert other is not ready
    await taken.close()
    await other.close()
    await warm.close()


async def test_what_an_earlier_boot_left_is_swept(backend: DockerBackend, image: str) -> None:
    earlier = DockerBackend(
        Engine(None), peer=backend._peer, boot="earlier", default=SMALL, warm=0, lease_s=30.0
    )
    left = await earlier.acquire(image, SMALL, 30.0)
    mine = await backend.acquire(image, SMALL, 30.0)
    await backend.sweep()
    await gone(left.container)
    assert mine.alive
    await mine.close()

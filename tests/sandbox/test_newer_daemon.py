"""Sandboxes under a Docker daemon as Docker Engine 29 answers."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from newer import NewerDaemon

from chorus.executor.backend import BackendUnavailable, ImageUnavailable, Limits, Sandbox, SandboxError
from chorus.executor.docker import engine
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SMALL, Collected, SandboxContract

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]


@pytest_asyncio.fixture
async def newer(tmp_path: Path) -> AsyncIterator[NewerDaemon]:
    daemon = NewerDaemon(tmp_path / "docker.sock")
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest_asyncio.fixture
async def on_newer(newer: NewerDaemon) -> AsyncIterator[DockerBackend]:
    made = DockerBackend(
        Engine(newer.host), peer=f"test-{uuid.uuid4().hex}", boot="b", default=SMALL, warm=0, lease_s=30.0
    )
    yield made
    await made.close()


@pytest.mark.heavy
class TestNewer(SandboxContract):
    """The whole contract."""

    @pytest_asyncio.fixture
    async def acquire(self, on_newer: DockerBackend, image: str) -> AsyncIterator[Acquire]:
        made: list[Sandbox] = []

        async def get(limits: Limits) -> Sandbox:
            made.append(await on_newer.acquire(image, limits, 30.0))
            return made[-1]

        yield get
        for sandbox in made:
            with contextlib.suppress(SandboxError):
                await sandbox.close()


async def test_its_own_version_is_spoken(newer: NewerDaemon, on_newer: DockerBackend, image: str) -> None:
    assert (await on_newer.state()).detail.startswith("Docker 29.0.0")
    sandbox = await on_newer.acquire(image, SMALL, 30.0)
    await sandbox.begin({"name": f"chorus-test-{uuid.uuid4().hex}"}, {}, Collected())
    assert (await sandbox.run(1, "exit 3")).exit_code == 3
    async for sample in sandbox.samples():
        assert sample.memory_bytes > 0
        break
    await sandbox.close()
    assert await on_newer.sweep() == []
    assert set(newer.asked) == {"1.44"}
    with pytest.raises(ImageUnavailable, match="no such image in a simulation"):
        await on_newer.ensure_image("chorus-test/nowhere:v1")


async def test_a_daemon_that_was_replaced(newer: NewerDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls until the next look at it are the mesh's loss, and then the new one's version is spoken."""
    client = Engine(newer.host)
    client._api_version = "1.41"
    with pytest.raises(BackendUnavailable, match="replaced"):
        await client.image_id("x")
    assert await client.image_id("chorus-test/nowhere:v1") is None
    monkeypatch.setattr(engine, "API_OLDEST", (2, 0))
    with pytest.raises(BackendUnavailable, match="upgrade it"):
        await client.ping()
    client.close()

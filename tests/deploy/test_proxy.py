"""Everything that a sandbox needs passes through the filtering proxy; test_proxy_*.py say what does not."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from chorus.agent.docker_check import docker_problem
from chorus.executor.backend import ImageUnavailable, Limits, Sandbox
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.container import (
    resource_limits,
)
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SMALL, SandboxContract

from .conftest import LEASE_S, NOWHERE, NOWHERE_PINNED, PREFIX, SANDBOX, docker

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

Acquire = Callable[[Limits], Awaitable[Sandbox]]


class TestPlain(SandboxContract):
    """The whole contract of a sandbox, through the proxy."""

    @pytest_asyncio.fixture
    async def acquire(self, plain_acquire: Acquire) -> Acquire:
        return plain_acquire


@pytest_asyncio.fixture
async def backend(proxy: str) -> AsyncIterator[DockerBackend]:
    made = DockerBackend(
        Engine(proxy), peer=f"p{uuid.uuid4().hex}", boot="b", default=SMALL, warm=1, lease_s=LEASE_S
    )
    yield made
    await made.forget_warm()
    await made.sweep()
    await made.close()


async def test_what_the_executor_asks_besides(backend: DockerBackend, proxy: str) -> None:
    assert (await backend.state()).ok
    assert docker_problem(proxy, {}) == ""
    assert (await backend.ensure_image(SANDBOX))[0].startswith("sha256:")
    # The daemon's own words: the pull went through, and the image is nowhere.
    with pytest.raises(ImageUnavailable, match="could not be pulled") as caught:
        await backend.ensure_image(NOWHERE)
    assert "refused by the proxy" not in caught.value.reason
    with pytest.raises(ImageUnavailable, match="could not be pulled") as caught:
        await backend.ensure_image(NOWHERE_PINNED)
    assert "refused by the proxy" not in caught.value.reason
    assert not await backend.has_image(NOWHERE_PINNED)
    sandbox = await backend.acquire(SANDBOX, SMALL, LEASE_S, {"chorus.task": "t1"})
    name = f"{PREFIX}-named"
    await sandbox.begin({"name": name}, {}, _Nothing())
    async with asyncio.timeout(60):
        async for sample in sandbox.samples():
            assert sample.memory_bytes > 0
            break
        await asyncio.gather(*sandbox._background)
    assert docker("inspect", "--format", "{{.Name}}", sandbox.container) == f"/{name}"
    assert (await backend._engine.inspect_exec(sandbox._exec_id))["Running"]
    await backend._engine.update(sandbox.container, resource_limits(SMALL))
    await backend._engine.kill(sandbox.container)
    backend._live.discard(sandbox.container)
    # As after a crash: found by its label and removed.
    assert await backend.sweep() == ["t1"]


class _Nothing:
    def write(self, stream: str, command: int, data: bytes) -> None:
        return

    def end(self, command: int) -> None:
        return

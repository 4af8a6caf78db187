"""A real Docker backend for the sandbox tests. Without a daemon or an image they are skipped, saying so."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import docker
import pytest
import pytest_asyncio
from world import World, stand_in_core

from chorus.executor.backend import Limits, Sandbox, SandboxError
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.engine import Engine

IMAGES = ("anthonyrawlins/chorus-base:latest", "chorus-test-base:latest")
LEASE_S = 30.0
USUAL = Limits(cpus=1.0, memory_bytes=128 << 20, pids=32, disk_bytes=64 << 20)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker daemon and a sandbox image")


@pytest.fixture(scope="session")
def image() -> str:
    try:
        client = docker.from_env(timeout=10)
        known = {tag for found in client.images.list() for tag in found.tags}
    except Exception as error:
        pytest.skip(f"no Docker daemon: {error}")
    for name in (os.environ.get("CHORUS_TEST_IMAGE", ""), *IMAGES):
        if name in known:
            return name
    pytest.skip("no sandbox image: run deploy/sandbox/build.sh")


@pytest.fixture(scope="session")
def python_image(image: str) -> str:
    """A sandbox image with Python, for tasks that know their way about."""
    name = os.environ.get("CHORUS_TEST_PYTHON_IMAGE", "anthonyrawlins/chorus-python-dev:latest")
    try:
        docker.from_env().images.get(name)
    except docker.errors.ImageNotFound:
        pytest.skip(f"no {name}: run deploy/sandbox/build.sh")
    return name


@pytest_asyncio.fixture
async def world(tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """An executor with all that it needs but the core."""
    stand_in_core(monkeypatch)
    made = World(tmp_path / "data", image)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[DockerBackend]:
    made = DockerBackend(
        Engine(None), peer=f"test-{uuid.uuid4().hex}", boot="boot", default=USUAL, warm=0, lease_s=LEASE_S
    )
    yield made
    await made.close()


@pytest_asyncio.fixture
async def acquire(
    backend: DockerBackend, image: str
) -> AsyncIterator[Callable[[Limits], Awaitable[Sandbox]]]:
    made: list[Sandbox] = []

    async def get(limits: Limits) -> Sandbox:
        sandbox = await backend.acquire(image, limits, LEASE_S)
        made.append(sandbox)
        return sandbox

    yield get
    for sandbox in made:
        with contextlib.suppress(SandboxError):
            await sandbox.close()

"""The session reads cgroup v2's files: in a namespace of its own, in the whole tree, and without a peak.

The files are laid over the container's own, so that this machine may have either version.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest
import pytest_asyncio

from chorus.executor.backend import SandboxError
from chorus.executor.docker.container import USER, configuration, session_command
from chorus.executor.docker.engine import Engine
from chorus.executor.docker.session import Session
from chorus.testing.sandbox_contract import SMALL

pytestmark = pytest.mark.docker

FILES = Path(__file__).with_name("cgroup2")
LEASE_S = 30.0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What /sys/fs/cgroup shows."""
    tmp_path.chmod(0o755)
    return Path(shutil.copytree(FILES, tmp_path / "cgroup"))


@pytest_asyncio.fixture
async def container(image: str, tree: Path) -> AsyncIterator[str]:
    engine = Engine(None)
    config = configuration(image, SMALL, {})
    config["HostConfig"]["Binds"] = [f"{tree}:/sys/fs/cgroup:ro"]
    made = await engine.create(config)
    await engine.start(made)
    yield made
    with contextlib.suppress(SandboxError):
        await engine.remove(made)
    engine.close()


async def usage(container: str) -> tuple[int, ...]:
    engine = Engine(None)
    _, sock, keep = await engine.open_exec(container, session_command(LEASE_S), USER)
    session = Session(sock, keep, LEASE_S)
    try:
        await session.open()
        return await session.usage()
    finally:
        session.close()
        engine.close()


async def test_its_own_group(container: str) -> None:
    assert await usage(container) == (2, 5, 73_400_320, 1_250_000_000)


async def test_a_kernel_without_a_peak(tree: Path, container: str) -> None:
    (tree / "memory.peak").unlink()
    assert await usage(container) == (2, 5, 0, 1_250_000_000)


async def test_the_whole_tree(tree: Path, container: str) -> None:
    shown = docker.from_env().containers.get(container).exec_run(["cat", "/proc/self/cgroup"]).output
    # The line of v2 is last, or the only one; here its path is that of whatever hierarchy stands first.
    path = shown.decode().splitlines()[0].split(":", 2)[2]
    if path == "/":
        pytest.skip("this engine gives containers a namespace of their own")
    group = tree / path.lstrip("/")
    group.mkdir(parents=True)
    for file in FILES.iterdir():
        if file.name != "cgroup.controllers":
            shutil.move(tree / file.name, group / file.name)
    assert await usage(container) == (2, 5, 73_400_320, 1_250_000_000)

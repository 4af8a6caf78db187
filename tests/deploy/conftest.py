"""The images that `make image` builds, under names of this test's own, and what runs of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import pytest_asyncio

from chorus.executor.backend import Limits, Sandbox, SandboxError
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SMALL

if TYPE_CHECKING:
    from .watched import Watched

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SOCKET = Path("/var/run/docker.sock")
SANDBOX = "anthonyrawlins/chorus-base:latest"
# Images that no registry has.
NOWHERE = "localhost:1/chorus/nowhere:v1.2"
NOWHERE_PINNED = "localhost:1/chorus/nowhere@sha256:" + "0" * 64
# Everything made here begins with this, and is gone afterwards.
PREFIX = f"chorus-deploy-{uuid.uuid4().hex[:8]}"
# A first build fetches Debian's packages and compiles the core; nothing is asserted about it.
GENEROUS_S = 1200
LEASE_S = 30.0
# Of `docker exec`: pip takes packages from these folders of a container, and nothing from its index.
OFFLINE = ("-e", "PIP_NO_INDEX=1", "-e", "PIP_FIND_LINKS=/packages /wheel")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deploy: the images and the compose file, with a Docker daemon")


def run(*words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """A command to its end; what it said when it must not fail and does."""
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True, timeout=GENEROUS_S)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def until(what: Callable[[], T], pause_s: float = 0.1) -> T:
    """The first truthy answer."""
    deadline = time.monotonic() + GENEROUS_S
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(pause_s)
    return answer


def docker(*words: str, check: bool = True) -> str:
    """What the docker command says."""
    done = run("docker", *words, check=check)
    return (done.stdout + ("" if check else done.stderr)).strip()


@dataclass(frozen=True)
class Images:
    """The two images under test."""

    agent: str
    proxy: str

    def build(self, *which: str) -> str:
        """`scripts/image.sh`, for both or one of `agent` and `proxy`; returns what it told."""
        venv = os.environ.get("CHORUS_VENV", sys.prefix)
        script = str(ROOT / "scripts" / "image.sh")
        return run(script, *which, TAG=self.agent, PROXY_TAG=self.proxy, CHORUS_VENV=venv).stderr


NAMES = Images(f"{PREFIX}-agent:latest", f"{PREFIX}-proxy:latest")


def script(name: str, *words: str) -> str:
    """What a script of this checkout prints."""
    venv = os.environ.get("CHORUS_VENV", sys.prefix)
    return run(str(ROOT / "scripts" / name), *words, CHORUS_VENV=venv).stdout.strip()


@pytest.fixture(scope="session")
def daemon() -> None:
    """Docker at its usual socket, with an image for sandboxes."""
    if not SOCKET.exists() or run("docker", "image", "inspect", SANDBOX, check=False).returncode:
        pytest.skip(f"no Docker at {SOCKET}, or no {SANDBOX}: make setup")


@pytest.fixture(scope="session")
def proxy_image(daemon: None) -> Iterator[str]:
    NAMES.build("proxy")
    yield NAMES.proxy
    docker("image", "rm", NAMES.proxy, check=False)


@pytest.fixture(scope="session")
def images(proxy_image: str) -> Iterator[Images]:
    NAMES.build("agent")
    yield NAMES
    docker("image", "rm", NAMES.agent, check=False)


def proxy_words(
    image: str, name: str, publish: str, *more: str, socket: Path | None = SOCKET
) -> Sequence[str]:
    """The proxy as compose.yaml runs it, before a daemon's `socket`, or before none."""
    hard = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    who = ("--user", f"65534:{SOCKET.stat().st_gid}")
    mount = ("-v", f"{socket}:{SOCKET}:ro") if socket else ()
    return ("run", "-d", "--name", name, *hard, *who, *mount, "-p", f"127.0.0.1::{publish}", *more, image)


def published(container: str, port: int) -> int:
    """Where a container's port is reached on this host."""
    return int(docker("port", container, str(port)).splitlines()[0].rpartition(":")[2])


def until_answered(port: int) -> None:
    """Docker takes connections to a published port before anybody listens behind it, and drops them.

    A proxy under TLS says that it was asked without, which will do.
    """
    deadline = time.monotonic() + GENEROUS_S
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        ):
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            if connection.recv(1):
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers at port {port}")


@pytest.fixture(scope="module")
def proxy(proxy_image: str) -> Iterator[str]:
    """A proxy's address, as DOCKER_HOST."""
    name = f"{PREFIX}-plain"
    docker(*proxy_words(proxy_image, name, "2375", "-e", f"CHORUS_SANDBOX_ALLOW={NOWHERE},{NOWHERE_PINNED}"))
    until_answered(published(name, 2375))
    yield f"tcp://127.0.0.1:{published(name, 2375)}"
    docker("rm", "-f", name)


@pytest.fixture(scope="module")
def watched(proxy_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A proxy whose log and whose way to the daemon are looked at."""
    from .watched import watch  # which is made of what stands here

    with watch(proxy_image, f"{PREFIX}-watched", tmp_path_factory.mktemp("watched")) as made:
        yield made


@dataclass(frozen=True)
class Secured:
    """A proxy that asks for certificates."""

    host: str
    client: Path
    name: str


@pytest.fixture(scope="module")
def secured(proxy_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    certs = tmp_path_factory.mktemp("certs")
    run(str(DEPLOY / "certs.sh"), str(certs), "docker-proxy", "127.0.0.1")
    # Fixtures' folders are private; the proxy is another user.
    certs.parent.chmod(0o755)
    certs.chmod(0o755)
    name = f"{PREFIX}-tls"
    words = proxy_words(proxy_image, name, "2376", "-v", f"{certs}/server:/certs:ro")
    docker(*words, "/etc/docker-proxy/tls.conf")
    until_answered(published(name, 2376))
    yield Secured(f"tcp://127.0.0.1:{published(name, 2376)}", certs / "client", name)
    docker("rm", "-f", name)


async def through(host: str) -> AsyncIterator[Callable[[Limits], Awaitable[Sandbox]]]:
    """Clean sandboxes from behind a proxy."""
    backend = DockerBackend(
        Engine(host), peer=f"deploy{uuid.uuid4().hex}", boot="boot", default=SMALL, warm=0, lease_s=LEASE_S
    )
    made: list[Sandbox] = []

    async def get(limits: Limits) -> Sandbox:
        sandbox = await backend.acquire(SANDBOX, limits, LEASE_S)
        made.append(sandbox)
        return sandbox

    yield get
    for sandbox in made:
        with contextlib.suppress(SandboxError):
            await sandbox.close()
    assert await backend.sweep() == []
    await backend.close()


@pytest_asyncio.fixture
async def plain_acquire(proxy: str) -> AsyncIterator[Callable[[Limits], Awaitable[Sandbox]]]:
    async for get in through(proxy):
        yield get


@pytest_asyncio.fixture
async def secured_acquire(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[Limits], Awaitable[Sandbox]]]:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(secured.client))
    async for get in through(secured.host):
        yield get


@pytest.fixture(scope="session")
def compose() -> Sequence[str]:
    """The compose command of this machine."""
    if run("docker", "compose", "version", check=False).returncode == 0:
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    pytest.skip("no docker compose: apt-get install docker-compose")

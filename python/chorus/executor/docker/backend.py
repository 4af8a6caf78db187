"""Docker as a backend of sandboxes: makes containers, keeps warm ones, sweeps what an earlier boot left
behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from chorus.executor.backend import (
    BackendState,
    BackendUnavailable,
    ImageUnavailable,
    Limits,
    SandboxError,
)
from chorus.executor.docker.container import (
    LABEL_BOOT,
    LABEL_PEER,
    LABEL_TASK,
    SESSION_SHELL,
    USER,
    configuration,
    resource_limits,
    session_command,
)
from chorus.executor.docker.engine import Engine
from chorus.executor.docker.pool import WarmPool
from chorus.executor.docker.sandbox import DockerSandbox
from chorus.executor.docker.session import Session

# A line of health has room for these.
_IMAGES_NAMED_MAX = 3
# In what a daemon says that could not set `container.IPV6_OFF`: its name or its file.
_NO_IPV6 = "disable_ipv6"
# How long a stop waits for containers that are just being made; the next sweep removes what comes later.
_CLOSING_S = 5.0


class DockerBackend:
    """The one backend of this release. `default` is the shape that warm containers have."""

    def __init__(
        self, engine: Engine, *, peer: str, boot: str, default: Limits, warm: int, lease_s: float
    ) -> None:
        self._engine = engine
        self._peer = peer
        self._boot = boot
        self._default = default
        # The lease of warm containers: the mesh's, as soon as it is known.
        self.lease_s = lease_s
        self._pool = WarmPool(self._make_usual, warm)
        self._live: set[str] = set()
        self._unprotected: set[str] = set()
        # Names of containers that the daemon may have made and we do not know the ids of yet.
        self._creating: set[str] = set()
        self._making: set[asyncio.Task[Any]] = set()
        # Whether a container may be left that nobody knows of: a call that made or removed one had no answer.
        self._doubtful = False
        self._ipv6 = True

    async def acquire(
        self, image: str, limits: Limits, lease_s: float, labels: Mapping[str, str] | None = None
    ) -> DockerSandbox:
        """A warm sandbox when its disk has the size asked for (that cannot be changed), else a cold one."""
        if lease_s != self.lease_s:
            self.lease_s = lease_s
            await self._pool.forget()
        self._pool.use(image)
        sandbox = self._pool.take(image, lambda warm: warm.limits.disk_bytes == limits.disk_bytes)
        if sandbox is None:
            return await self._make(image, limits, lease_s, labels or {})
        try:
            if limits != sandbox.limits:
                await self._engine.update(sandbox.container, resource_limits(limits))
                sandbox.limits = limits
        except BaseException:
            with contextlib.suppress(SandboxError):
                await asyncio.shield(sandbox.close())
            raise
        return sandbox

    def prewarm(self, image: str) -> None:
        """Has a warm container made for an image that will probably be asked for."""
        self._pool.use(image)

    async def ensure_image(self, image: str) -> tuple[str, float]:
        """The image's content id and the seconds a pull took; raises ImageUnavailable."""
        if digest := await self._engine.image_id(image):
            return digest, 0.0
        started = time.monotonic()
        await self._engine.pull(image)
        digest = await self._engine.image_id(image)
        if digest is None:
            raise ImageUnavailable(f"image {image} is not there after pulling it")
        return digest, time.monotonic() - started

    @property
    def containers(self) -> int:
        """Containers that this process has started and not removed, warm ones included."""
        return len(self._live)

    async def has_image(self, image: str) -> bool:
        """Whether the image is here."""
        return await self._engine.image_id(image) is not None

    async def state(self) -> BackendState:
        try:
            version = await self._engine.ping()
        except SandboxError as error:
            return BackendState(False, error.reason)
        if self._doubtful:
            self._doubtful = False
            try:
                await self.sweep()
            except SandboxError:
                self._doubtful = True
        return BackendState(True, f"Docker {version}{self._warning()}")

    def _warning(self) -> str:
        """What health says of images without a shell that keeps the session out of the task's reach."""
        if not self._unprotected:
            return ""
        named = ", ".join(sorted(self._unprotected)[:_IMAGES_NAMED_MAX])
        return f"; tasks in {named} can forge their exit codes: the image has no {SESSION_SHELL} of mode 0111"

    async def sweep(self) -> list[str]:
        """Only one executor of a peer lives at a time: what bears the peer's label and is not ours is left
        over.
        """
        tasks = []
        for container in await self._engine.containers(f"{LABEL_PEER}={self._peer}"):
            names = {name.removeprefix("/") for name in container.get("Names") or ()}
            if container["Id"] in self._live or names & self._creating:
                continue
            if task := (container.get("Labels") or {}).get(LABEL_TASK):
                tasks.append(str(task))
            await self._engine.remove(str(container["Id"]))
        return tasks

    async def forget_warm(self) -> None:
        """Drops the warm containers, for when the daemon went away under them."""
        await self._pool.forget()

    async def close(self) -> None:
        """Removes the warm containers and closes the connections."""
        await self._pool.close()
        if self._making:
            await asyncio.wait(self._making, timeout=_CLOSING_S)
        self._engine.close()

    # ----------------------------------------------------------------------------------------------

    async def _make_usual(self, image: str) -> DockerSandbox:
        return await self._make(image, self._default, self.lease_s, {})

    async def _make(
        self, image: str, limits: Limits, lease_s: float, labels: Mapping[str, str]
    ) -> DockerSandbox:
        """Makes a sandbox, and removes it again when nobody waits for it any more.

        The daemon goes on making a container when its caller was cancelled, so the making goes on too.
        """
        making = asyncio.get_running_loop().create_task(self._build(image, limits, lease_s, labels))
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            removing = asyncio.get_running_loop().create_task(_remove_made(making))
            self._making.add(removing)
            removing.add_done_callback(self._making.discard)
            raise

    async def _build(
        self, image: str, limits: Limits, lease_s: float, labels: Mapping[str, str]
    ) -> DockerSandbox:
        digest = await self._engine.image_id(image)
        if digest is None:
            raise ImageUnavailable(f"image {image} is not here")
        known = {LABEL_PEER: self._peer, LABEL_BOOT: self._boot, LABEL_TASK: "", **labels}
        container = await self._start(digest, limits, known)
        session: Session | None = None
        try:
            exec_id, sock, keep = await self._engine.open_exec(container, session_command(lease_s), USER)
            session = Session(sock, keep, lease_s)
            await session.open()
            (self._unprotected.discard if session.protected else self._unprotected.add)(image)
            return DockerSandbox(self._engine, container, session, exec_id, image, digest, limits, self._gone)
        except BaseException:
            if session:
                session.close()
            await self._remove(container)
            raise

    async def _start(self, digest: str, limits: Limits, labels: Mapping[str, str]) -> str:
        """A started container; its id."""
        while True:
            ipv6 = self._ipv6
            container = await self._create(configuration(digest, limits, labels, ipv6=ipv6))
            try:
                await self._engine.start(container)
            except BaseException as error:
                await self._remove(container)
                if not (isinstance(error, SandboxError) and ipv6 and _NO_IPV6 in error.reason):
                    raise
                self._ipv6 = False  # the daemon's kernel knows no IPv6
                continue
            return container

    async def _create(self, config: Mapping[str, Any]) -> str:
        name = f"chorus-sandbox-{secrets.token_hex(8)}"
        self._creating.add(name)
        try:
            container = await self._engine.create(config, name)
            self._live.add(container)
            return container
        except BackendUnavailable:
            self._doubtful = True
            raise
        finally:
            self._creating.discard(name)

    async def _remove(self, container: str) -> None:
        try:
            await self._engine.remove(container)
        except SandboxError:
            self._gone(container, removed=False)
        else:
            self._gone(container, removed=True)

    def _gone(self, container: str, removed: bool) -> None:
        self._live.discard(container)
        self._doubtful = self._doubtful or not removed


async def _remove_made(making: asyncio.Task[DockerSandbox]) -> None:
    with contextlib.suppress(SandboxError):
        await (await making).close()

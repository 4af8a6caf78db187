"""Docker as a backend of sandboxes: makes containers, keeps warm ones, sweeps what an earlier boot left
behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

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
from chorus.executor.docker.sandbox import DockerSandbox
from chorus.executor.docker.session import Session

# Images beyond these that were used longest ago keep no warm container.
_WARM_IMAGES_MAX = 3
_WARM_RETRY_S = 30.0
# A line of health has room for these.
_IMAGES_NAMED_MAX = 3
# Making a container costs as much CPU as a small task: it waits until the task that took the last one has
# begun.
_REFILL_DELAY_S = 0.1


@dataclass(slots=True)
class _Warm:
    """The clean started containers of one image."""

    used_at: float
    ready: list[DockerSandbox] = field(default_factory=list)
    filling: asyncio.Task[None] | None = None


class DockerBackend:
    """The one backend of this release. `default` is the shape that warm containers have."""

    def __init__(
        self, engine: Engine, *, peer: str, boot: str, default: Limits, warm: int, lease_s: float
    ) -> None:
        self._engine = engine
        self._peer = peer
        self._boot = boot
        self._default = default
        self._warm_per_image = warm
        self._lease_s = lease_s
        self._pool: dict[str, _Warm] = {}
        self._closing = False
        self._live: set[str] = set()
        self._unprotected: set[str] = set()

    async def acquire(
        self, image: str, limits: Limits, lease_s: float, labels: Mapping[str, str] | None = None
    ) -> DockerSandbox:
        """A warm sandbox when its disk has the size asked for (that cannot be changed), else a cold one."""
        warm = self._pool.setdefault(image, _Warm(0.0))
        warm.used_at = time.monotonic()
        try:
            while warm.ready:
                sandbox = warm.ready.pop()
                if not sandbox.alive:
                    await self._discard(sandbox)
                    continue
                if limits.disk_bytes != sandbox.limits.disk_bytes or lease_s != self._lease_s:
                    warm.ready.append(sandbox)
                    break
                if limits != sandbox.limits:
                    try:
                        await self._engine.update(sandbox.container, resource_limits(limits))
                    except SandboxError:
                        await self._discard(sandbox)
                        raise
                    sandbox.limits = limits
                return sandbox
            return await self._make(image, limits, lease_s, labels or {})
        finally:
            self._refill(image)

    def prewarm(self, image: str) -> None:
        """Has a warm container made for an image that will probably be asked for."""
        self._pool.setdefault(image, _Warm(time.monotonic()))
        self._refill(image)

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
            if container["Id"] in self._live:
                continue
            if task := (container.get("Labels") or {}).get(LABEL_TASK):
                tasks.append(str(task))
            await self._engine.remove(str(container["Id"]))
        return tasks

    async def forget_warm(self) -> None:
        """Drops the warm containers, for when the daemon went away under them."""
        for warm in self._pool.values():
            while warm.ready:
                await self._discard(warm.ready.pop())

    async def close(self) -> None:
        self._closing = True
        for warm in self._pool.values():
            if warm.filling:
                warm.filling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await warm.filling
        await self.forget_warm()
        self._engine.close()

    # ----------------------------------------------------------------------------------------------

    async def _make(
        self, image: str, limits: Limits, lease_s: float, labels: Mapping[str, str]
    ) -> DockerSandbox:
        digest = await self._engine.image_id(image)
        if digest is None:
            raise ImageUnavailable(f"image {image} is not here")
        known = {LABEL_PEER: self._peer, LABEL_BOOT: self._boot, LABEL_TASK: "", **labels}
        container = await self._engine.create(configuration(digest, limits, known))
        self._live.add(container)
        session: Session | None = None
        try:
            await self._engine.start(container)
            _, sock, keep = await self._engine.open_exec(container, session_command(lease_s), USER)
            session = Session(sock, keep, lease_s)
            await session.open()
            (self._unprotected.discard if session.protected else self._unprotected.add)(image)
            return DockerSandbox(self._engine, container, session, image, digest, limits, self._live.discard)
        except BaseException:
            self._live.discard(container)
            if session:
                session.close()
            # Shielded: a cancelled start must not leave its container behind.
            with contextlib.suppress(SandboxError):
                await asyncio.shield(self._engine.remove(container))
            raise

    def _refill(self, image: str) -> None:
        warm = self._pool[image]
        if self._closing or self._warm_per_image <= 0 or (warm.filling and not warm.filling.done()):
            return
        warm.filling = asyncio.get_running_loop().create_task(self._fill(image, warm))

    async def _fill(self, image: str, warm: _Warm) -> None:
        if warm.used_at:
            await asyncio.sleep(_REFILL_DELAY_S)
        await self._shrink()
        while not self._closing and self._pool.get(image) is warm:
            for sandbox in [dead for dead in warm.ready if not dead.alive]:
                warm.ready.remove(sandbox)
                await self._discard(sandbox)
            if len(warm.ready) >= self._warm_per_image:
                return
            try:
                warm.ready.append(await self._make(image, self._default, self._lease_s, {}))
            except ImageUnavailable:
                return
            except BackendUnavailable:
                await asyncio.sleep(_WARM_RETRY_S)
            except SandboxError:
                return

    async def _shrink(self) -> None:
        """Keeps warm containers of the images used last."""
        while len(self._pool) > _WARM_IMAGES_MAX:
            oldest = min(self._pool, key=lambda image: self._pool[image].used_at)
            dropped = self._pool.pop(oldest)
            for sandbox in dropped.ready:
                await self._discard(sandbox)

    async def _discard(self, sandbox: DockerSandbox) -> None:
        with contextlib.suppress(SandboxError):
            await sandbox.close()

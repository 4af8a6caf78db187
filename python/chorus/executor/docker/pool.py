"""The warm pool: clean started sandboxes of the images used last, ready to be taken.

Its entries change in methods that never wait, and one task makes and removes sandboxes, so that none is lost
on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from chorus.executor.backend import BackendUnavailable, SandboxError
from chorus.executor.docker.sandbox import DockerSandbox

# Images beyond these that were used longest ago keep no warm container.
_IMAGES_MAX = 3
_RETRY_S = 30.0
# Making a container costs as much CPU as a small task: it waits until the task that took the last one has
# begun.
_REFILL_DELAY_S = 0.1

Make = Callable[[str], Awaitable[DockerSandbox]]


class WarmPool:
    """Owns its sandboxes until `take` gives one away.

    `make` makes one of an image, or raises SandboxError; of each image used last, `per_image` are kept.
    """

    def __init__(self, make: Make, per_image: int) -> None:
        self._make = make
        self._per_image = per_image
        # Images in the order of their last use, the latest at the end.
        self._ready: dict[str, list[DockerSandbox]] = {}
        self._leaving: list[DockerSandbox] = []
        self._wake = asyncio.Event()
        # Set when nothing is left to make or to remove.
        self.settled = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    def use(self, image: str) -> None:
        """The image is used now: it keeps warm sandboxes, and the one used longest ago may lose its own."""
        if self._closed or self._per_image <= 0:
            return
        self._ready[image] = self._ready.pop(image, [])
        while len(self._ready) > _IMAGES_MAX:
            self._leaving += self._ready.pop(next(iter(self._ready)))
        self._look()

    def take(self, image: str, fits: Callable[[DockerSandbox], bool]) -> DockerSandbox | None:
        """A living sandbox of the image that fits, which is the caller's from now on; None without one."""
        ready = self._ready.get(image, [])
        for sandbox in list(ready):
            if not sandbox.alive:
                ready.remove(sandbox)
                self._leaving.append(sandbox)
            elif fits(sandbox):
                ready.remove(sandbox)
                return sandbox
        return None

    async def forget(self) -> None:
        """Removes all sandboxes, for when the daemon went away under them."""
        for ready in self._ready.values():
            self._leaving += ready
            ready.clear()
        await self._remove()
        self._look()

    async def close(self) -> None:
        """Removes all sandboxes and makes no more."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self.forget()

    # ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.settled.clear()
        self._wake.set()
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_REFILL_DELAY_S)
            self._wake.clear()
            try:
                await self._remove()
                for image in reversed(list(self._ready)):
                    await self._fill(image)
            # The daemon is away, or this process has no descriptor or thread left: the pool outlives both.
            except Exception:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._wake.wait()
                self._wake.set()
            if not self._wake.is_set():
                self.settled.set()

    async def _fill(self, image: str) -> None:
        """Until the image has its sandboxes, or cannot have more."""
        while len(self._ready.get(image, ())) < self._per_image and image in self._ready:
            try:
                sandbox = await self._make(image)
            except BackendUnavailable:
                raise
            except SandboxError:
                return  # its next use tries again
            # The image may have lost its place meanwhile.
            self._ready.get(image, self._leaving).append(sandbox)
        await self._remove()

    async def _remove(self) -> None:
        for ready in self._ready.values():
            for sandbox in [dead for dead in ready if not dead.alive]:
                ready.remove(sandbox)
                self._leaving.append(sandbox)
        while self._leaving:
            with contextlib.suppress(SandboxError):
                await self._leaving.pop().close()

"""Which images are here, and pulling those that are not: once at a time for each, whoever asks."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from chorus.executor.backend import ImageUnavailable
from chorus.executor.docker.backend import DockerBackend

# Images come and go by other hands too. The coordinator asks every few seconds, and the daemon has to be
# asked for each image by itself.
PRESENT_S: Final = 30.0


class ImageStore:
    """Shares pulls between attempts."""

    def __init__(self, backend: DockerBackend) -> None:
        self._backend = backend
        self._pulls: dict[str, asyncio.Task[float]] = {}
        # An image seen once is asked for again only when a container cannot be made of it.
        self._here: set[str] = set()
        # What `present` was asked last, what it found, and when.
        self._asked: list[str] = []
        self._found: list[str] = []
        self._found_at = -math.inf

    async def ensure(self, image: str, patience_s: float | None = None) -> float:
        """Seconds a pull took. With patience, a pull still going on after it is taken to succeed."""
        if image in self._here:
            return 0.0
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = asyncio.create_task(self._get(image))
            pull.add_done_callback(lambda _: self._pulls.pop(image, None))
        done, _ = await asyncio.wait((pull,), timeout=patience_s)
        if done:
            seconds = pull.result()
            self._here.add(image)
            if seconds:
                self._found_at = -math.inf
            return seconds
        return 0.0

    def forget(self) -> None:
        """The daemon may be another one now."""
        self._here.clear()
        self._found_at = -math.inf

    async def present(self, images: list[str]) -> list[str]:
        """Those of the images that need no pull, as of the last half minute."""
        if images == self._asked and time.monotonic() - self._found_at < PRESENT_S:
            return self._found
        asked_at = time.monotonic()
        found = []
        for image in images:
            try:
                if await self._backend.has_image(image):
                    found.append(image)
            except ImageUnavailable:
                continue
        self._asked, self._found, self._found_at = images, found, asked_at
        return found

    async def _get(self, image: str) -> float:
        return (await self._backend.ensure_image(image))[1]

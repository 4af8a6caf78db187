"""News of the files that a goal touches: the leader sees from them which goals depend on each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from chorus.wire.messages import PATHS_MAX

# Paths of so long a time travel together.
_TOGETHER_S: Final = 2.0


class Progress:
    """One attempt's; each path is said once."""

    def __init__(self, announce: Callable[[list[str]], Awaitable[None]], spawn: Callable[[Any], Any]) -> None:
        self._announce = announce
        self._spawn = spawn
        self._said: set[str] = set()
        self._waiting: list[str] = []
        self._saying = False

    def touched(self, path: str) -> None:
        """A file below the workspace was written."""
        if path in self._said or len(self._said) >= 10 * PATHS_MAX:
            return
        self._said.add(path)
        self._waiting.append(path)
        if not self._saying:
            self._saying = True
            self._spawn(self._say())

    async def _say(self) -> None:
        try:
            await asyncio.sleep(_TOGETHER_S)
            while self._waiting:
                said = self._waiting[:PATHS_MAX]
                await self._announce(said)
                del self._waiting[: len(said)]
        finally:
            # Also when it fails: what is left is said with the next path.
            self._saying = False

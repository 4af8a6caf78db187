"""Looks now and then which files the commands of a goal have changed, and says so while the goal runs.

A look takes its turn between calls, at a time when the model usually thinks, so that no step waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from chorus.executor.backend import SandboxError
from chorus.executor.goal.tools import Tools, Wrong
from chorus.executor.goal.trees import of_the_work
from chorus.executor.patch import Tree

# Between two looks: so long at least, and so many times as long as the last look took.
EVERY_S: Final = 10.0
_TIMES: Final = 20


class ChangedFiles:
    """One attempt's. `turn` is held by calls; `before` is the source as it was sent."""

    def __init__(
        self, tools: Tools, turn: asyncio.Lock, before: Tree, touched: Callable[[str], None]
    ) -> None:
        self._tools = tools
        self._turn = turn
        self._before = before
        self._touched = touched
        # Of the sandbox's clock: what changed later is new.
        self._since: float | None = None
        self._asked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._in_look = False
        self._closed = False

    def begin(self) -> None:
        """What changes from now on is the commands' doing."""
        self._asked.set()
        self._looking = asyncio.create_task(self._look_again_and_again())

    def ran(self) -> None:
        """A command has ended: a look follows, soon."""
        self._asked.set()

    def close(self) -> None:
        """Begins no look any more."""
        self._closed = True
        # A look under way ends by itself, or with its sandbox: the session must not be left in the middle.
        if self._looking is not None and not self._in_look:
            self._looking.cancel()

    async def settle(self) -> None:
        """Waits for a look under way."""
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def _look_again_and_again(self) -> None:
        while not self._closed:
            await self._asked.wait()
            async with self._turn:
                self._asked.clear()
                begun, self._in_look = time.monotonic(), True
                await self._look()
                self._in_look = False
            if not self._closed:
                await asyncio.sleep(max(EVERY_S, _TIMES * (time.monotonic() - begun)))

    async def _look(self) -> None:
        try:
            now, paths = await self._tools.changed_since(self._since)
            if self._since is not None:
                for path in await asyncio.to_thread(of_the_work, paths, self._before):
                    self._touched(path)
        except (SandboxError, Wrong, OSError, ValueError):
            return  # who calls next finds what is wrong; a later look names these files too
        self._since = now

"""One command of a goal: its process group, its time limit, and the file that its output goes through."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from chorus.executor.backend import CommandEnd, GroupEnd, SandboxGone
from chorus.executor.docker.requests import Ended
from chorus.executor.docker.session import Session

FOLDER = "/tmp/.chorus"
# A command that is over by then costs no process that follows its output.
_FOLLOW_AFTER_S = 0.05
# A command that has written more is killed: its output lies in the sandbox's memory.
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
# Of output that is longer still the end alone is fetched.
_END_BYTES = 256 * 1024


class GroupRun:
    """Runs one command and hands its output on, each byte once."""

    def __init__(self, session: Session, take: Callable[[bytes], None]) -> None:
        self._session = session
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[int] = self._loop.create_future()
        self._file = ""
        self._taken = 0
        self._size = 0
        self._followed = False
        self._timed_out = False
        self._cut = False

    async def run(self, number: int, command: str, workdir: str, stdin: str, timeout_s: float) -> Ended:
        """To the command's end. Raises SandboxGone."""
        self._file = f"{FOLDER}/{number}-{secrets.token_hex(4)}"
        limit = self._loop.call_later(timeout_s, self._at_limit)
        following = self._loop.create_task(self._follow())
        try:
            ended = await self._session.group(
                number, command, workdir, stdin, self._file, self._begun, self._live
            )
        finally:
            limit.cancel()
            following.cancel()
            self._begun.cancel()
        if self._followed:
            await self._session.unfollow()
        self._size = self._taken if ended.size is None else ended.size
        # Killed with everything else, nobody could say how much it had written: all that is there.
        await self._fetch((OUTPUT_BYTES_MAX if ended.size is None else ended.size) - self._taken)
        self._size = max(self._size, self._taken)
        return ended

    def end(self, end: CommandEnd) -> GroupEnd:
        """How it ended, as the sandbox has judged it."""
        return GroupEnd(
            end.exit_code,
            end.ended_by,
            end.duration_s,
            self._timed_out,
            self._cut,
            self._size,
            self._file,
            end.note,
        )

    async def _fetch(self, left: int) -> None:
        if left <= 0:
            return
        skipped = left - _END_BYTES if self._taken + left > OUTPUT_BYTES_MAX else 0
        skipped = max(0, skipped)
        await self._session.rest(self._file, self._taken + skipped, left - skipped, self._count)

    def _live(self, data: bytes) -> None:
        """On the channel's thread. What nobody has asked for is not the command's."""
        if not self._followed:
            return
        self._count(data)
        if self._taken > OUTPUT_BYTES_MAX and not self._cut:
            self._cut = True
            self._loop.call_soon_threadsafe(self._kill)

    def _count(self, data: bytes) -> None:
        self._taken += len(data)
        self._take(data)

    async def _follow(self) -> None:
        # Before the command has begun there is no such file.
        await asyncio.shield(self._begun)
        await asyncio.sleep(_FOLLOW_AFTER_S)
        with contextlib.suppress(SandboxGone):
            self._followed = True
            self._session.follow(self._file)

    def _at_limit(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        """Ends the group, as soon as it is known."""

        def known(begun: asyncio.Future[int]) -> None:
            if not begun.cancelled():
                with contextlib.suppress(SandboxGone):
                    self._session.end_group(begun.result())

        self._begun.add_done_callback(known)

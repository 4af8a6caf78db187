"""A sandbox in Docker: one container, one session, one task; and what a command's end means."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.executor.backend import (
    CommandEnd,
    EndedBy,
    FileEntry,
    GroupEnd,
    Kind,
    Limits,
    NoSpace,
    OutputSink,
    Sample,
    SandboxError,
    SandboxGone,
    SandboxLost,
    Usage,
)
from chorus.executor.docker.channel import ENDED
from chorus.executor.docker.container import SESSION_CUT_OFF, SHARED_MEMORY, TEMPORARY, WORKSPACE
from chorus.executor.docker.engine import Engine
from chorus.executor.docker.group import GroupRun
from chorus.executor.docker.requests import Ended
from chorus.executor.docker.session import Session
from chorus.executor.docker.stats import read_sample
from chorus.wire.counts import counted

# A daemon that has not reported a container's end after so many looks, will not.
_REPORT_TRIES = 20
_REPORT_WAIT_S = 0.05
# Docker's time of an end that has not been; a container that runs and has one was started again.
_NEVER = "0001-01-01"
# Exit codes above this are signals, or 255: a daemon that has lost sight of the container.
_SIGNALLED = 128
# A session that has not killed its processes by then is stuck; the daemon kills the container.
_STOP_GRACE_S = 2.0
# A name is for people who look at what runs; a task that is over before needs none.
_NAME_DELAY_S = 1.0
# A disk with less than this left is what a failing command failed by.
_DISK_FULL_BYTES = 64 * 1024
# In the order in which the session counts them.
_FOLDERS = (WORKSPACE, TEMPORARY, SHARED_MEMORY)
# How a shell reports a command that SIGBUS ended.
_SIGBUS_CODE = 128 + signal.SIGBUS
# A large checkout with its dependencies fits; in memory an entry costs several times its bytes.
_LISTING_BYTES_MAX = 32 * 1024 * 1024
_FILES_MAX = 200_000
# The largest size that a file can have.
_SIZE_DIGITS_MAX = 19
_KINDS: dict[str, Kind] = {"f": "file", "d": "directory", "l": "link"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """Counters of the container when the last command ended."""

    oom: int = 0
    full: int = 0


class DockerSandbox:
    """A clean started container with an open session, until `begin` makes it a task's."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        session: Session,
        exec_id: str,
        image: str,
        digest: str,
        limits: Limits,
        gone: Callable[[str, bool], None] = lambda container, removed: None,
    ) -> None:
        self._gone = gone
        self._engine = engine
        self.container = container
        self.session = session
        self._exec_id = exec_id
        self.limits = limits
        self._image = image
        self._digest = digest
        self._stopping: EndedBy | None = None
        self._running = False
        self._last = _Seen()
        self._most_sampled = 0
        self._closed = False
        self._background: set[asyncio.Task[None]] = set()

    @property
    def image(self) -> str:
        return self._image

    @property
    def image_digest(self) -> str:
        return self._digest

    @property
    def protected(self) -> bool:
        return self.session.protected

    @property
    def alive(self) -> bool:
        """Whether the session still stands."""
        return not self._closed and not self.session.closed.done()

    async def begin(self, labels: Mapping[str, str], env: Mapping[str, str], sink: OutputSink) -> None:
        self.session.give(sink)
        self.session.export(env)
        if name := labels.get("name"):
            self._in_background(self._rename(name))

    async def put(self, archive: Path, directory: str = WORKSPACE) -> None:
        code = await self._checked(self.session.put(archive, directory))
        if code == 0:
            return
        if await self._full_folders():
            raise NoSpace("the files do not fit on the sandbox's disk")
        raise SandboxError(f"unpacking the files failed with code {code}")

    async def run(
        self, number: int, command: str, *, workdir: str = WORKSPACE, stdin: str = "/dev/null"
    ) -> CommandEnd:
        self._running = True
        try:
            ended = await self._checked(self.session.run(number, command, workdir, stdin))
        except (SandboxGone, SandboxLost) as error:
            if self._stopping:
                return CommandEnd(137, self._stopping, 0.0, error.reason)
            raise
        finally:
            self._running = False
        end = await self._judge(ended)
        self._last = _Seen(ended.out_of_memory_kills, ended.process_limit_hits)
        return end

    async def run_group(
        self,
        number: int,
        command: str,
        take: Callable[[bytes], None],
        *,
        timeout_s: float,
        workdir: str = WORKSPACE,
        stdin: str = "/dev/null",
    ) -> GroupEnd:
        run = GroupRun(self.session, take)
        self._running = True
        try:
            ended = await self._checked(run.run(number, command, workdir, stdin, timeout_s))
        except (SandboxGone, SandboxLost) as error:
            if self._stopping:
                return run.end(CommandEnd(137, self._stopping, 0.0, error.reason))
            raise
        finally:
            self._running = False
        end = await self._judge(ended)
        self._last = _Seen(ended.out_of_memory_kills, ended.process_limit_hits)
        return run.end(end)

    async def forget(self, files: Sequence[str]) -> None:
        if files and self.alive:
            self.session.forget(files)

    async def stop(self, why: EndedBy) -> None:
        if self._stopping is None:
            self._stopping = why
        if not self.alive:
            return
        try:
            self.session.stop()
        except SandboxGone:
            return
        if self._running:
            self._in_background(self._kill_if_stuck())

    async def files(self, directory: str = WORKSPACE) -> list[FileEntry]:
        listing = bytearray()

        def collect(data: bytes) -> None:
            if len(listing) <= _LISTING_BYTES_MAX:
                listing.extend(data)

        await self._checked(self.session.list(directory, collect))
        if len(listing) > _LISTING_BYTES_MAX:
            raise SandboxError("the workspace holds too many files to list")
        return await asyncio.to_thread(_read_listing, bytes(listing))

    async def get(
        self, paths: Sequence[str], into: Path, directory: str = WORKSPACE, *, bytes_max: int
    ) -> None:
        names = b"".join(f"./{path}".encode("utf-8", "surrogateescape") + b"\0" for path in paths)
        written = 0
        with into.open("wb") as file:

            def collect(data: bytes) -> None:
                nonlocal written
                written += len(data)
                if written <= bytes_max:
                    file.write(data)

            # Whatever tar says of one file, the others are there.
            await self._checked(self.session.get(names, directory, collect))
        if written > bytes_max:
            raise SandboxError("the files grew while they were packed")

    async def usage(self) -> Usage:
        oom, full, peak, cpu = await self._checked(self.session.usage())
        # A kernel without memory.peak (cgroup v2 before Linux 5.19) knows no better than the samples.
        return Usage(cpu / 1e9, peak or self._most_sampled, oom, full)

    async def samples(self) -> AsyncIterator[Sample]:
        """The SDK's stream blocks, so a thread of its own reads it; it ends with the container."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Sample | None] = asyncio.Queue(maxsize=16)

        def offer(sample: Sample | None) -> None:
            if queue.full():
                queue.get_nowait()  # the newest sample is the one that counts
            queue.put_nowait(sample)

        def read() -> None:
            try:
                for raw in self._engine.stats(self.container):
                    if (sample := read_sample(raw)) is not None:
                        loop.call_soon_threadsafe(offer, sample)
                    if self._closed:
                        break
            except Exception:  # a daemon that goes away ends the samples; the task's watch says so by itself
                pass
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(offer, None)

        threading.Thread(target=read, name="sandbox-stats", daemon=True).start()
        while (sample := await queue.get()) is not None:
            self._most_sampled = max(self._most_sampled, sample.memory_bytes)
            yield sample

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.session.close()
        for task in self._background:
            task.cancel()
        removed = False
        try:
            await self._engine.remove(self.container)
            removed = True
        finally:
            self._gone(self.container, removed)

    # ----------------------------------------------------------------------------------------------

    async def _judge(self, ended: Ended) -> CommandEnd:
        """Names what ended a command. Only a failure has a cause to name."""
        code, seconds = ended.exit_code, ended.duration_s
        killed = ended.out_of_memory_kills - self._last.oom
        refused = ended.process_limit_hits - self._last.full
        limit = f"the process limit (resources.pids: {self.limits.pids})"
        note = f"{limit} was reached {counted(refused, 'time')}" if refused > 0 else ""
        if self._stopping:
            return CommandEnd(code, self._stopping, seconds, note)
        if code == 0:
            return CommandEnd(code, "exit", seconds, note)
        if killed > 0:
            if await self._disk_used() > self.limits.disk_bytes:
                return CommandEnd(code, "disk", seconds, "its files left no memory for its processes")
            note = f"{killed} processes were killed for memory ({self._memory})"
            return CommandEnd(code, "out_of_memory", seconds, note)
        if refused > 0:
            return CommandEnd(code, "pids", seconds, note)
        size = f"{self.limits.disk_bytes >> 20} MiB (resources.disk_mb)"
        if full := await self._full_folders():
            return CommandEnd(code, "disk", seconds, f"no space was left in {' and '.join(full)} of {size}")
        if code == _SIGBUS_CODE:
            # What has freed its shared memory since leaves no trace but this.
            note = f"SIGBUS, as when a mapped file finds no room: /dev/shm has {size}"
            return CommandEnd(code, "exit", seconds, note)
        return CommandEnd(code, "exit", seconds)

    @property
    def _memory(self) -> str:
        return f"resources.memory_mb: {self.limits.memory_bytes >> 20}"

    async def _checked(self, request: Any) -> Any:
        """A session that ends under a request: did the task end it, or somebody or something outside?

        What the session itself says is the task's own; anything else is judged by what a task cannot bring
        about.
        """
        try:
            return await request
        except SandboxGone as gone:
            if self._closed or self._stopping not in (None, "exit"):
                raise  # by our own order
            # The daemon reports a death a moment after it closes the streams.
            for _ in range(_REPORT_TRIES):
                found = await self._engine.inspect(self.container)  # raises BackendUnavailable itself
                if found is None:
                    raise SandboxLost("the sandbox's container was removed from outside") from gone
                state = found["State"]
                if state.get("Paused"):
                    raise SandboxLost("the sandbox's container was paused from outside") from gone
                if not state.get("Running"):
                    break
                if not str(state.get("FinishedAt") or _NEVER).startswith(_NEVER):
                    raise SandboxLost("the sandbox's container was restarted from outside") from gone
                await asyncio.sleep(_REPORT_WAIT_S)
            else:
                await self._check_connection(gone)
                raise SandboxGone(f"{gone.reason}, the container lived on") from gone
            if state.get("OOMKilled"):
                raise SandboxGone(
                    f"the sandbox was killed for memory ({self._memory})", out_of_memory=True
                ) from gone
            # The kernel lets no process of a container signal its process 1, which ends with 0 by itself.
            if (code := state.get("ExitCode") or 0) > _SIGNALLED:
                raise SandboxLost(f"the sandbox's container was killed from outside (code {code})") from gone
            await self._check_connection(gone)
            raise SandboxGone(
                "the sandbox's session was killed" if gone.reason == ENDED else gone.reason
            ) from gone

    async def _check_connection(self, gone: SandboxGone) -> None:
        """Raises SandboxLost when the session was cut off from us, and not ended by its task."""
        if gone.reason != ENDED:
            return  # we ended it ourselves, for what the session said or did not say
        state = await self._engine.inspect_exec(self._exec_id)
        if state.get("Running") or state.get("ExitCode") == SESSION_CUT_OFF:
            why = "its connection broke, or nothing came over it for a lease"
            raise SandboxLost(f"the sandbox's session was cut off: {why}") from gone

    async def _disk_space(self) -> dict[str, tuple[int, int]]:
        """(free, used) bytes of each writable folder; nothing when the session cannot say."""
        try:
            said = await self.session.space()
        except SandboxGone:
            return {}
        counted = zip(_FOLDERS, said[0::3], said[1::3], said[2::3], strict=True)
        return {folder: (free * size, (blocks - free) * size) for folder, free, size, blocks in counted}

    async def _full_folders(self) -> list[str]:
        space = await self._disk_space()
        return [folder for folder, (free, _) in space.items() if free < _DISK_FULL_BYTES]

    async def _disk_used(self) -> int:
        return sum(used for _, used in (await self._disk_space()).values())

    async def _kill_if_stuck(self) -> None:
        await asyncio.sleep(_STOP_GRACE_S)
        if self._running:
            await self._engine.kill(self.container)

    async def _rename(self, name: str) -> None:
        await asyncio.sleep(_NAME_DELAY_S)
        await self._engine.rename(self.container, name)

    def _in_background(self, work: Any) -> None:
        async def quietly() -> None:
            # A name or a second kill: the removal at the end is what counts.
            with contextlib.suppress(SandboxError):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _read_listing(listing: bytes) -> list[FileEntry]:
    """The session's list of files: kind, size, path and link target of each, ended by NUL."""
    if listing.count(b"\0") > 4 * _FILES_MAX:
        raise SandboxError(f"the workspace holds more than {_FILES_MAX} files")
    fields = [field.decode("utf-8", "surrogateescape") for field in listing.split(b"\0")]
    quadruples = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
    return [
        FileEntry(
            path, _KINDS.get(kind.removeprefix("!"), "other"), _size(size), target, not kind.startswith("!")
        )
        for kind, size, path, target in quadruples
    ]


def _size(text: str) -> int:
    """A file's size; 0 for what is none, as the listing is the task's word."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _SIZE_DIGITS_MAX else 0

"""The session protocol on the agent's side: requests as lines, answers as marks (session.sh is the other
side).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.executor.backend import OutputSink, SandboxGone, Stream
from chorus.executor.docker.channel import Channel, ChannelClosed
from chorus.executor.docker.marks import Mark, MarkFinder
from chorus.executor.docker.quoting import bash_word

_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_COPY_BYTES = 256 * 1024
# Unpacking or packing a full disk; only a broken sandbox takes longer.
_TRANSFER_TIMEOUT_S = 300.0
_ASK_TIMEOUT_S = 15.0

Collector = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's end as the session reports it; counters are of the container since its start."""

    exit_code: int
    out_of_memory_kills: int
    process_limit_hits: int
    duration_s: float


@dataclass(slots=True)
class _Running:
    """A command on its way: both streams say its end, in either order."""

    number: int
    future: asyncio.Future[tuple[str, ...]]
    words: tuple[str, ...] | None = None
    stderr_ended: bool = False


class Session:
    """An open session. One command at a time; `stop` may come while it runs."""

    def __init__(self, sock: socket.socket, keep: Any, lease_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        nonce = secrets.token_hex(16)
        self._finders = {1: MarkFinder(nonce), 2: MarkFinder(nonce)}
        self._sink: OutputSink | None = None
        self._number = 0
        self._running: _Running | None = None
        self._asking = asyncio.Lock()
        self._answer: tuple[str, asyncio.Future[tuple[str, ...]]] | None = None
        self._collector: Collector | None = None
        self._collecting = False
        self._sending_file = False
        self._lease_s = lease_s
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self._channel = Channel(sock, self._receive, self._on_closed, keep=keep)
        self._hello = f"hello {nonce}\n".encode()
        self._keepalive = self._loop.create_task(self._keep_alive())

    async def open(self) -> None:
        """Greets the session; it is ready when this returns."""
        await self._ask(self._hello, "ready")

    def give(self, sink: OutputSink) -> None:
        """From now on output goes there."""
        self._sink = sink

    def export(self, environment: Mapping[str, str]) -> None:
        """Sets variables for the commands that follow.

        They travel in the stream, so no process list shows them.
        """
        if lines := b"".join(
            b"export " + name.encode() + b"=" + bash_word(value) + b"\n"
            for name, value in environment.items()
        ):
            self._write(lines)

    async def run(self, number: int, command: str, workdir: str, stdin: str) -> Ended:
        """Runs a command to its end; all of its output has gone to the sink when this returns."""
        if self._running is not None:
            raise RuntimeError("a session runs one command at a time")
        future: asyncio.Future[tuple[str, ...]] = self._loop.create_future()
        self._running = _Running(number, future)
        self._number = number
        try:
            self._write(
                b"run %d %s %s %s\n" % (number, bash_word(workdir), bash_word(stdin), bash_word(command))
            )
            started = time.monotonic()
            words = await self._or_gone(future)
            code, oom, full = (int(word) for word in words[:3])
            return Ended(code, oom, full, time.monotonic() - started)
        except (ValueError, IndexError) as error:
            raise SandboxGone(f"the session answered nonsense: {error}") from error
        finally:
            self._running = None

    def stop(self) -> None:
        """Kills every process of the task; a running command then ends with code 137."""
        self._write(b"stop\n")

    async def put(self, archive: Path, directory: str) -> int:
        """Sends a tar archive to be unpacked; returns tar's exit code."""
        size = (await asyncio.to_thread(archive.stat)).st_size
        async with self._asking:
            self._sending_file = True
            try:
                self._write(b"put %d %s\n" % (size, bash_word(directory)))
                answer = self._expect("put")
                await asyncio.to_thread(self._send_file, archive, size)
            finally:
                self._sending_file = False
            words = await self._answered(answer, _TRANSFER_TIMEOUT_S)
        return int(words[0])

    async def list(self, directory: str, collector: Collector) -> int:
        """Lists a directory: type, size, path, link target, each ended by NUL."""
        line = b"list %s\n" % bash_word(directory)
        return int((await self._ask(line, "listed", collector, _TRANSFER_TIMEOUT_S))[0])

    async def get(self, names: bytes, directory: str, collector: Collector) -> int:
        """Packs files by their names, each ended by NUL; returns tar's exit code."""
        line = b"get %d %s\n" % (len(names), bash_word(directory)) + names
        return int((await self._ask(line, "got", collector, _TRANSFER_TIMEOUT_S))[0])

    async def space(self) -> tuple[str, ...]:
        """Free blocks, block size and blocks of the workspace and the temporary folder."""
        return await self._ask(b"space\n", "space")

    async def usage(self) -> tuple[int, ...]:
        """Out-of-memory kills, process limit hits, memory peak, CPU nanoseconds."""
        return tuple(int(word) for word in await self._ask(b"usage\n", "usage"))

    def close(self) -> None:
        """Ends the session; process 1 of the sandbox ends with it."""
        self._keepalive.cancel()
        self._channel.close()

    # ---- requests --------------------------------------------------------------------------------

    async def _ask(
        self, line: bytes, reply: str, collector: Collector | None = None, timeout_s: float = _ASK_TIMEOUT_S
    ) -> tuple[str, ...]:
        async with self._asking:
            self._collector = collector
            answer = self._expect(reply)
            self._write(line)
            try:
                return await self._answered(answer, timeout_s)
            finally:
                self._collector = None

    def _expect(self, reply: str) -> asyncio.Future[tuple[str, ...]]:
        future: asyncio.Future[tuple[str, ...]] = self._loop.create_future()
        self._answer = (reply, future)
        return future

    async def _answered(self, future: asyncio.Future[tuple[str, ...]], timeout_s: float) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._or_gone(future)
        except TimeoutError:
            raise SandboxGone(f"the session does not answer within {timeout_s:.0f} s") from None

    async def _or_gone(self, future: asyncio.Future[tuple[str, ...]]) -> tuple[str, ...]:
        await asyncio.wait((future, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise SandboxGone(self.closed.result())

    def _write(self, data: bytes) -> None:
        try:
            self._channel.write(data)
        except ChannelClosed:
            raise SandboxGone("the session is gone") from None

    def _send_file(self, archive: Path, size: int) -> None:
        try:
            with archive.open("rb") as file:
                left = size
                while left:
                    chunk = file.read(min(_COPY_BYTES, left))
                    if not chunk:
                        raise SandboxGone("an archive became shorter while it was sent")
                    self._channel.write_wait(chunk, _TRANSFER_TIMEOUT_S)
                    left -= len(chunk)
        except ChannelClosed:
            raise SandboxGone("the session is gone") from None

    async def _keep_alive(self) -> None:
        """Every third of a lease. A file on its way must not be broken into, and is a sign of life itself."""
        with contextlib.suppress(ChannelClosed):
            while True:
                await asyncio.sleep(self._lease_s / 3)
                if not self._sending_file:
                    self._channel.write(b"k\n")

    # ---- on the channel's thread -----------------------------------------------------------------

    def _receive(self, stream: int, data: bytes) -> None:
        finder = self._finders.get(stream)
        if finder is None:
            return
        for piece in finder.feed(data):
            if isinstance(piece, Mark):
                self._on_mark(stream, piece.words)
            elif self._collecting and stream == 1:
                if self._collector is not None:
                    self._collector(piece)
            elif self._sink is not None:
                self._sink.write(_STREAMS[stream], self._number, piece)

    def _on_mark(self, stream: int, words: tuple[str, ...]) -> None:
        match words:
            case ("list" | "get", *_):
                self._collecting = True
            case ("end", number, *rest) if number.isdigit():
                self._on_end(int(number), tuple(rest), stream)
            case (reply, *rest):
                self._collecting = False
                self._loop.call_soon_threadsafe(self._resolve, reply, tuple(rest))

    def _on_end(self, number: int, rest: tuple[str, ...], stream: int) -> None:
        """A mark for a command that has ended already is the echo of a `stop`."""
        running = self._running
        if running is None or running.number != number or (running.words and running.stderr_ended):
            return
        if stream == 2:
            running.stderr_ended = True
        elif running.words is None:
            running.words = rest
        if running.words and running.stderr_ended:
            if self._sink is not None:
                self._sink.end(number)
            self._loop.call_soon_threadsafe(self._finish, running.future, running.words)

    def _on_closed(self, why: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone already
            self._loop.call_soon_threadsafe(self._finish_closed, why)

    # ---- back on the loop ------------------------------------------------------------------------

    def _resolve(self, reply: str, words: tuple[str, ...]) -> None:
        if self._answer is not None and self._answer[0] == reply and not self._answer[1].done():
            self._answer[1].set_result(words)

    def _finish(self, future: asyncio.Future[tuple[str, ...]], words: tuple[str, ...]) -> None:
        if not future.done():
            future.set_result(words)

    def _finish_closed(self, why: str) -> None:
        self._keepalive.cancel()
        if not self.closed.done():
            self.closed.set_result(why)

"""The session protocol on the agent's side: requests as lines, answers as marks (session.sh is the other
side).

A task shares the session's output streams: it may read a mark before it comes here, change it and write it
again. So each request carries the token of its answer, and a command two, of which the session writes the
true one. A mark without a token that is waited for is output like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from chorus.executor.backend import OutputSink, SandboxGone, Stream
from chorus.executor.docker.channel import ENDED, Channel, ChannelClosed
from chorus.executor.docker.marks import EXIT_CODE_MAX, Mark, MarkError, MarkFinder, counter, counters
from chorus.executor.docker.quoting import bash_word
from chorus.executor.docker.requests import Asked, Collector, Ended, Group, Running, new_token

_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_COPY_BYTES = 256 * 1024
# Unpacking or packing a full disk; only a broken sandbox takes longer.
_TRANSFER_TIMEOUT_S = 300.0
# Generous: a session that does not answer has failed its task, and a machine may be very busy.
_ASK_TIMEOUT_S = 60.0
# A session that has nothing else to do answers at once; after this it is stopped or stuck.
_SILENCE_S_MIN = 30.0
# Of each of the three writable folders: free blocks, block size and blocks.
_SPACE_COUNTERS = 9
_USAGE_COUNTERS = 4

T = TypeVar("T")


class Session:
    """An open session. One command at a time; `stop` may come while it runs."""

    def __init__(self, sock: socket.socket, keep: Any, lease_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._nonce = new_token()
        self._finders = {1: MarkFinder(self._nonce), 2: MarkFinder(self._nonce)}
        self._sink: OutputSink | None = None
        self._number = 0
        self._running: Running | None = None
        self._stopped: Running | None = None
        self._asking = asyncio.Lock()
        self._asked: Asked | None = None
        self._collector: Collector | None = None
        self._collecting = False
        self._sending_file = False
        self._receiving = False
        self._alive: set[str] = set()
        self._heard_at = time.monotonic()
        self.lease_s = lease_s
        # Whether the session's memory, and so its tokens, are out of the task's reach.
        self.protected = False
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self._channel = Channel(sock, self._receive, self._on_closed, keep=keep)
        self._keepalive = self._loop.create_task(self._keep_alive())

    async def open(self) -> None:
        """Greets the session; it is ready when this returns."""
        words = await self._ask(f"hello {self._nonce}", b"", "ready")
        self.protected = words == ("protected",)

    def give(self, sink: OutputSink) -> None:
        """From now on output goes there."""
        self._sink = sink

    def export(self, environment: Mapping[str, str]) -> None:
        """Sets variables for the commands that follow.

        Their values travel in the stream, so no process list shows them, and each under the name of a
        carrier, which no task can guess and so take: the session's bash would keep some names for itself.
        """
        if not environment:
            return
        token = new_token()
        carriers = {f"v{token}_{index}": name for index, name in enumerate(environment)}
        lines = [
            b"export %s=%s\n" % (carrier.encode(), bash_word(environment[name]))
            for carrier, name in carriers.items()
        ]
        named = " ".join(f'{name}="${carrier}"' for carrier, name in carriers.items())
        first = f"export {named}; unset {' '.join(carriers)}; "
        self._write(b"".join(lines) + b"first=" + bash_word(first) + b"\n")

    async def run(self, number: int, command: str, workdir: str, stdin: str) -> Ended:
        """Runs a command to its end; all of its output has gone to the sink when this returns."""
        if self._running is not None:
            raise RuntimeError("a session runs one command at a time")
        running = self._running = Running(number, self._loop.create_future())
        self._number = number
        try:
            head = f"run {number} {running.success} {running.failure} ".encode()
            self._write(head + b"%s %s %s\n" % (bash_word(workdir), bash_word(stdin), bash_word(command)))
            started = time.monotonic()
            code, oom, full = await self._or_gone(running.future)
            return Ended(code, oom, full, time.monotonic() - started)
        finally:
            # A `stop` that came too late says the command's end once more.
            self._stopped, self._running = running, None

    async def group(
        self,
        number: int,
        command: str,
        workdir: str,
        stdin: str,
        file: str,
        begun: asyncio.Future[int],
        live: Collector,
    ) -> Ended:
        """Runs a command in a process group of its own, its output going into `file`, to its end.

        `begun` becomes the group's id; `live` is called on the channel's thread.
        """
        if self._running is not None:
            raise RuntimeError("a session runs one command at a time")
        running = self._running = Group(number, self._loop.create_future(), begun=begun, live=live)
        self._number = number
        try:
            tokens = f"{running.success} {running.failure} {running.begun_token}"
            words = b" ".join(bash_word(word) for word in (workdir, stdin, file, command))
            self._write(f"group {number} {tokens} ".encode() + words + b"\n")
            started = time.monotonic()
            code, oom, full, *size = await self._or_gone(running.future)
            return Ended(code, oom, full, time.monotonic() - started, size[0] if size else None)
        finally:
            self._stopped, self._running = running, None

    def end_group(self, group: int) -> None:
        """Kills a command's process group."""
        self._write(b"endgroup %d\n" % group)

    def follow(self, file: str) -> None:
        """What is in the file of a command's output, and what comes, goes to its `live`."""
        self._write(b"follow %s\n" % bash_word(file))

    async def unfollow(self) -> None:
        """All that was read of the file has been handed on when this returns."""
        await self._ask("unfollow", b"", "unfollowed")

    async def rest(self, file: str, offset: int, count: int, collector: Collector) -> int:
        """So many bytes of a file at most; returns the exit code of what read it."""
        words = b"%d %d %s" % (offset, count, bash_word(file))
        return self._code(await self._ask("rest", words, "rested", collector, _TRANSFER_TIMEOUT_S))

    def forget(self, files: Iterable[str]) -> None:
        """Removes files."""
        self._write(b"forget " + b" ".join(bash_word(file) for file in files) + b"\n")

    def stop(self) -> None:
        """Kills every process of the task; a running command then ends with code 137.

        A file on its way must not be broken into: then the session ends, and the sandbox with it.
        """
        if self._sending_file:
            self.close("stopped while files were sent")
        else:
            self._write(b"stop\n")

    async def put(self, archive: Path, directory: str) -> int:
        """Sends a tar archive to be unpacked; returns tar's exit code."""
        size = (await asyncio.to_thread(archive.stat)).st_size
        async with self._asking:
            self._sending_file = True
            try:
                asked = self._expect("put")
                self._write(b"put %s %d %s\n" % (asked.token.encode(), size, bash_word(directory)))
                await asyncio.to_thread(self._send_file, archive, size)
            finally:
                self._sending_file = False
            return self._code(await self._answered(asked, _TRANSFER_TIMEOUT_S))

    async def list(self, directory: str, collector: Collector) -> int:
        """Lists a directory: type (`!` before that of what cannot be read), size, path, link target, each
        ended by NUL.
        """
        asked = await self._ask("list", bash_word(directory), "listed", collector, _TRANSFER_TIMEOUT_S)
        return self._code(asked)

    async def get(self, names: bytes, directory: str, collector: Collector) -> int:
        """Packs files by their names, each ended by NUL; returns tar's exit code."""
        words = b"%d %s" % (len(names), bash_word(directory))
        return self._code(await self._ask("get", words, "got", collector, _TRANSFER_TIMEOUT_S, after=names))

    async def space(self) -> tuple[int, ...]:
        """Free blocks, block size and blocks of /workspace, /tmp and /dev/shm, one after the other."""
        return self._counters(await self._ask("space", b"", "space"), _SPACE_COUNTERS)

    async def usage(self) -> tuple[int, ...]:
        """Out-of-memory kills, process limit hits, memory peak, CPU nanoseconds."""
        return self._counters(await self._ask("usage", b"", "usage"), _USAGE_COUNTERS)

    def close(self, why: str = "closed") -> None:
        """Ends the session; process 1 of the sandbox ends with it."""
        self._keepalive.cancel()
        self._channel.close(why)

    # ---- requests --------------------------------------------------------------------------------

    async def _ask(
        self,
        verb: str,
        words: bytes,
        reply: str,
        collector: Collector | None = None,
        timeout_s: float | None = None,
        after: bytes = b"",
    ) -> tuple[str, ...]:
        async with self._asking:
            self._collector = collector
            asked = self._expect(reply)
            self._write(f"{verb} {asked.token} ".encode() + words + b"\n" + after)
            try:
                return await self._answered(asked, timeout_s or _ASK_TIMEOUT_S)
            finally:
                self._collector = None

    def _expect(self, reply: str) -> Asked:
        self._asked = Asked(reply, self._loop.create_future())
        return self._asked

    async def _answered(self, asked: Asked, timeout_s: float) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(timeout_s):
                words = await self._or_gone(asked.future)
        except TimeoutError:
            why = f"the session does not answer within {timeout_s:.0f} s"
            self.close(why)
            raise SandboxGone(why) from None
        self._heard_at = time.monotonic()
        return words

    async def _or_gone(self, future: asyncio.Future[T]) -> T:
        await asyncio.wait((future, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise SandboxGone(self.closed.result())

    def _code(self, words: tuple[str, ...]) -> int:
        return self._counters(words, 1)[0]

    def _counters(self, words: tuple[str, ...], count: int) -> tuple[int, ...]:
        try:
            return counters(words, count)
        except MarkError as error:
            why = f"the session answered nonsense: {error}"
            self.close(why)
            raise SandboxGone(why) from error

    def _write(self, data: bytes) -> None:
        try:
            self._channel.write(data)
        except ChannelClosed:
            raise SandboxGone(self.closed.result() if self.closed.done() else ENDED) from None

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
            raise SandboxGone(ENDED) from None

    async def _keep_alive(self) -> None:
        """Every third of a lease. A file on its way must not be broken into, and is a sign of life itself.

        A session that a task has stopped (SIGSTOP) says nothing more, while its connection stands.
        """
        silence_s = max(self.lease_s, _SILENCE_S_MIN)
        with contextlib.suppress(ChannelClosed):
            while True:
                await asyncio.sleep(self.lease_s / 3)
                # It answers a request first, and is held up by output that the sink does not take.
                if self._asking.locked() or self._receiving:
                    self._heard_at = time.monotonic()
                elif time.monotonic() - self._heard_at > silence_s:
                    self._channel.close(f"the session has said nothing for {silence_s:.0f} s")
                    return
                if not self._sending_file:
                    token = new_token()
                    self._alive.add(token)
                    self._channel.write(b"alive %s\n" % token.encode())

    # ---- on the channel's thread -----------------------------------------------------------------

    def _receive(self, stream: int, data: bytes) -> None:
        finder = self._finders.get(stream)
        if finder is None:
            return
        self._receiving = True
        for piece in finder.feed(data):
            if not isinstance(piece, Mark):
                self._output(stream, piece)
            elif not self._on_mark(stream, piece.words):
                self._output(stream, piece.raw)
        self._receiving = False

    def _output(self, stream: int, data: bytes) -> None:
        if self._collecting and stream == 1:
            if self._collector is not None:
                self._collector(data)
        elif isinstance(self._running, Group):
            if stream == 1:
                self._running.live(data)
        elif self._sink is not None:
            self._sink.write(_STREAMS[stream], self._number, data)

    def _on_mark(self, stream: int, words: tuple[str, ...]) -> bool:
        """Whether it was the session's. What it says wrongly ends the session, by MarkError."""
        token, words = words[0] if words else "", words[1:]
        for running in (self._running, self._stopped):
            if running is not None and token in (running.success, running.failure):
                if running is self._running:
                    self._on_end(running, stream, token == running.success, words)
                return True
        running = self._running
        if isinstance(running, Group) and token == running.begun_token:
            if len(words) != 2 or words[0] != "begun" or (group := counter(words[1])) < 2:
                raise MarkError("a beginning that names no process group")
            self._loop.call_soon_threadsafe(self._finish, running.begun, group)
            return True
        if stream == 1 and token in self._alive:
            self._alive.discard(token)
            self._heard_at = time.monotonic()
            return True
        asked = self._asked
        if stream == 2 or asked is None or token != asked.token or asked.future.done():
            return False
        match words:
            case ("list" | "get" | "rest",):
                self._collecting = True
            case (reply, *rest) if reply == asked.reply:
                self._collecting = False
                self._loop.call_soon_threadsafe(self._finish, asked.future, tuple(rest))
            case _:
                raise MarkError(f"an answer that is no '{asked.reply}'")
        return True

    def _on_end(self, running: Running, stream: int, success: bool, words: tuple[str, ...]) -> None:
        if stream == 2:
            running.stderr_ended = True
        elif running.counted is None:
            if words[:2] != ("end", str(running.number)):
                raise MarkError(f"an end that is not of command {running.number}")
            # A stop kills a command whatever kind it is, and says no size.
            if len(words) != 5 and not (isinstance(running, Group) and len(words) == 6):
                raise MarkError(f"an end of {len(words)} words where 5 belong")
            code = counter(words[2], EXIT_CODE_MAX)
            if (code == 0) != success:
                raise MarkError("an end whose code is not that of its token")
            running.counted = (code, *(counter(word) for word in words[3:]))
        alone = isinstance(running, Group)
        if running.counted and (running.stderr_ended or alone) and not running.told:
            running.told = True
            if self._sink is not None and not alone:
                self._sink.end(running.number)
            self._loop.call_soon_threadsafe(self._finish, running.future, running.counted)

    def _on_closed(self, why: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone already
            self._loop.call_soon_threadsafe(self._finish_closed, why)

    # ---- back on the loop ------------------------------------------------------------------------

    def _finish(self, future: asyncio.Future[T], result: T) -> None:
        if not future.done():
            future.set_result(result)

    def _finish_closed(self, why: str) -> None:
        self._keepalive.cancel()
        if not self.closed.done():
            self.closed.set_result(why)

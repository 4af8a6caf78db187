"""What the session's marks may say: a wrong one ends the attempt by name, a foreign one is output."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.backend import SandboxGone
from chorus.executor.docker.marks import COUNTER_MAX, MarkError, counter, counters
from chorus.executor.docker.session import Session
from chorus.testing.sandbox_contract import Collected

DEADLINE_S = 60.0


class Other:
    """The session's other side, which says what it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self.nonce = ""

    async def line(self, verb: str) -> list[str]:
        """The words of the next request of a kind."""
        loop = asyncio.get_running_loop()
        while True:
            while b"\n" not in self._buffer:
                data = await loop.sock_recv(self._sock, 65536)
                assert data, "the agent closed the session"
                self._buffer += data
            line, self._buffer = self._buffer.split(b"\n", 1)
            words = line.decode().split()
            if words[0] == verb:
                return words

    async def write(self, stream: int, data: bytes) -> None:
        """One frame, as Docker writes them."""
        frame = struct.pack(">BxxxL", stream, len(data)) + data
        await asyncio.get_running_loop().sock_sendall(self._sock, frame)

    async def mark(self, *words: str, stream: int = 1) -> None:
        await self.write(stream, f"\0{self.nonce} {' '.join(words)}\n".encode())

    async def greet(self) -> None:
        _, self.nonce, token = await self.line("hello")
        await self.mark(token, "ready", "protected")


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[tuple[Session, Other]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    session, other = Session(ours, None, 30.0), Other(theirs)
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(session.open(), other.greet())
        yield session, other
    session.close()
    theirs.close()


async def test_an_end_as_it_should_be(pair: tuple[Session, Other]) -> None:
    session, other = pair
    sink = Collected()
    session.give(sink)
    running = asyncio.create_task(session.run(1, "exit 3", "/workspace", "/dev/null"))
    _, _, _, failure, *_ = await other.line("run")
    await other.write(1, b"output")
    await other.mark(failure, "end", "1", "3", "0", "2")
    await other.mark(failure, "end", "1", stream=2)
    ended = await running
    assert (ended.exit_code, ended.out_of_memory_kills, ended.process_limit_hits) == (3, 0, 2)
    assert (sink.take(), sink.ended) == (b"output", [1])
    assert session.protected


WRONG_ENDS = {
    "a wild code": ("failure", "end 1 99999999999999999999999999 0 0"),
    "a code that no process has": ("failure", "end 1 256 0 0"),
    "a code below zero": ("failure", "end 1 -1 0 0"),
    "no number": ("failure", "end 1 x 0 0"),
    "a number that only looks like one": ("failure", "end 1 \u00b2 0 0"),
    "a huge number": ("failure", "end 1 3 " + "9" * 3000 + " 0"),
    "a counter beyond what JSON keeps": ("failure", f"end 1 3 {COUNTER_MAX + 1} 0"),
    "fields missing": ("failure", "end 1 3"),
    "too many fields": ("failure", "end 1 3 0 0 0 0"),
    "nothing": ("failure", ""),
    "another command": ("failure", "end 2 3 0 0"),
    "another word": ("failure", "ended 1 3 0 0"),
    "success with the token of failure": ("failure", "end 1 0 0 0"),
    "failure with the token of success": ("success", "end 1 3 0 0"),
}


@pytest.mark.parametrize("what", WRONG_ENDS)
async def test_an_end_that_no_session_says_ends_it_by_name(pair: tuple[Session, Other], what: str) -> None:
    session, other = pair
    running = asyncio.create_task(session.run(1, "exit 3", "/workspace", "/dev/null"))
    _, _, success, failure, *_ = await other.line("run")
    which, words = WRONG_ENDS[what]
    await other.mark(success if which == "success" else failure, words)
    with pytest.raises(SandboxGone, match="the session broke: "):
        await running


@pytest.mark.parametrize(
    "words",
    ["end 1 0 0 0", "0" * 32 + " end 1 0 0 0", "usage 1 2 3 4", "ready", "list", "alive", "", "x" * 4000],
)
async def test_a_mark_without_a_token_is_output(pair: tuple[Session, Other], words: str) -> None:
    session, other = pair
    sink = Collected()
    session.give(sink)
    running = asyncio.create_task(session.run(1, "exit 3", "/workspace", "/dev/null"))
    _, _, _, failure, *_ = await other.line("run")
    await other.mark(words)
    await other.mark(words, stream=2)
    await other.mark(failure, "end", "1", "3", "0", "0")
    await other.mark(failure, "end", "1", stream=2)
    assert (await running).exit_code == 3
    forged = f"\0{other.nonce} {words}\n".encode()
    assert (sink.take(), sink.take("stderr")) == (forged, forged)


async def test_the_token_of_an_earlier_command_is_worth_nothing(pair: tuple[Session, Other]) -> None:
    session, other = pair
    tokens: list[str] = []
    for number, code in ((1, 0), (2, 3)):
        running = asyncio.create_task(session.run(number, "x", "/workspace", "/dev/null"))
        _, _, success, failure, *_ = await other.line("run")
        for token in tokens:
            await other.mark(token, "end", "2", "0", "0", "0")
            await other.mark(token, "end", "2", stream=2)
        tokens.append(failure if code else success)
        await other.mark(tokens[-1], "end", str(number), str(code), "0", "0")
        await other.mark(tokens[-1], "end", str(number), stream=2)
        assert (await running).exit_code == code


@pytest.mark.parametrize("words", ["1 2 3", "1 2 3 4 5", "1 2 3 x", "1 2 3 " + "9" * 300, "-1 2 3 4", ""])
async def test_numbers_that_no_session_says_end_it_by_name(pair: tuple[Session, Other], words: str) -> None:
    session, other = pair
    asking = asyncio.create_task(session.usage())
    _, token = await other.line("usage")
    await other.mark(token, "usage", words)
    with pytest.raises(SandboxGone, match="the session answered nonsense"):
        await asking
    assert await session.closed


async def test_an_answer_to_another_question_ends_it_by_name(pair: tuple[Session, Other]) -> None:
    session, other = pair
    asking = asyncio.create_task(session.usage())
    _, token = await other.line("usage")
    await other.mark(token, "space", "1 2 3 4 5 6")
    with pytest.raises(SandboxGone, match="no 'usage'"):
        await asking


@given(st.text(max_size=40) | st.integers().map(str))
def test_a_counter_is_a_number_within_bounds_or_refused(word: str) -> None:
    try:
        value = counter(word)
    except MarkError:
        assert not (word.isascii() and word.isdigit() and int(word) <= COUNTER_MAX and len(word) <= 16)
    else:
        assert 0 <= value <= COUNTER_MAX


def test_so_many_counters_and_no_others() -> None:
    assert counters(("0", str(COUNTER_MAX)), 2) == (0, COUNTER_MAX)
    for words in ((), ("1",), ("1", "2", "3")):
        with pytest.raises(MarkError, match="where 2 belong"):
            counters(words, 2)

"""A model's server for tests: raw HTTP over a real socket, requests answered from a script."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Answer:
    """One answer: its pieces as they are sent. It is whole, breaks off, or stays open for ever."""

    pieces: tuple[bytes, ...] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    end: Literal["whole", "broken", "open"] = "whole"


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Wire:
    """The server. What is asked beyond the script is answered with the last answer again."""

    port: int = 0
    script: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    # Set whenever an answer has been sent as far as it goes, or its reader has gone.
    told: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length") or 0))
                self.asked.append(Asked(method, path, headers, json.loads(body) if body else None))
                said = self.script[min(len(self.asked), len(self.script)) - 1]
                await self._send(writer, said)
                if said.end == "open":
                    try:
                        await reader.read()
                    finally:
                        self.gone.set()
                if said.end != "whole":
                    break
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter, said: Answer) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in said.headers)
        writer.write(f"HTTP/1.1 {said.status} X\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode())
        try:
            for piece in said.pieces:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            if said.end == "whole":
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            self.gone.set()
        self.told.set()


@contextlib.asynccontextmanager
async def wire(*script: Answer) -> AsyncIterator[Wire]:
    made = Wire(script=list(script))
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.close()


def lines(*said: object, end: Literal["whole", "broken", "open"] = "whole", **more: Any) -> Answer:
    """An answer of Ollama: each object a line, in a piece of its own."""
    return Answer(tuple(json.dumps(each).encode() + b"\n" for each in said), end=end, **more)


def events(*said: object, end: Literal["whole", "broken", "open"] = "whole") -> Answer:
    """An answer of OpenAI's wire: each object an event."""
    pieces = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in said]
    return Answer((*pieces, b"data: [DONE]\n\n") if end == "whole" else tuple(pieces), end=end)


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **more}, "done": False}


def call(tool: str, arguments: object) -> dict[str, Any]:
    return text("", tool_calls=[{"function": {"name": tool, "arguments": arguments}}])


def done(reason: str = "stop", tokens_in: int = 7, tokens_out: int = 3) -> dict[str, Any]:
    return {
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": reason,
        "prompt_eval_count": tokens_in,
        "eval_count": tokens_out,
    }


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def usage(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}}


def cut(data: bytes, at: Iterable[int]) -> tuple[bytes, ...]:
    """The data in pieces that end at these places."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return tuple(data[a:b] for a, b in itertools.pairwise(places))

"""The peer service `output`: an attempt's events, logs and artifacts as streams, to members alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from chorus.executor.journal import ARTIFACT_FOLDER, ARTIFACTS, EVENTS, Journal, attempt_folder
from chorus.hub import ByteStream, HubInvalid, HubNotFound, HubRefused, Request
from chorus.wire.ids import is_id

_READ_BYTES = 256 * 1024
# As far as a file can be read.
_COUNT_MAX = 2**63 - 1
_NUMBER = re.compile(rb'^\{"id":"\d+-(\d+)"')

Open = Callable[[str, int], Journal | None]
Over = Callable[[str, int], bool]
Keep = Callable[[Request, ByteStream], Awaitable[None]]
# Takes a member's words for a goal.
Say = Callable[[Request], dict[str, Any]]


class OutputService:
    """Serves what lies under the tasks folder. `journal` finds the journal of an attempt that is still being
    written to, `over` says whether the mesh has seen an attempt end, `listed` whether a peer is a member, and
    `gone` why what a task left here was removed. `keep` takes copies of what other members' attempts left,
    and `message` words for a goal that runs here.
    """

    def __init__(
        self,
        tasks: Path,
        journal: Open,
        over: Over,
        listed: Callable[[str], bool],
        gone: Callable[[str], str | None] = lambda task_id: None,
        keep: Keep | None = None,
        message: Say | None = None,
    ) -> None:
        self._message = message
        self._keep = keep
        self._gone = gone
        self._tasks = tasks
        self._journal = journal
        self._over = over
        self._listed = listed

    async def handle(self, request: Request) -> dict[str, Any]:
        """Requests: `artifacts` lists what was kept and what was left out, `message` says words to a goal."""
        self._check_member(request)
        if request.method == "message" and self._message is not None:
            return self._message(request)
        if request.method != "artifacts":
            raise HubInvalid(f"output has no method {request.method!r}")
        folder, _ = self._folder(request)
        listed = await asyncio.to_thread(_read_artifacts, folder)
        items = [{key: item[key] for key in ("path", "size", "sha256")} for item in listed["items"]]
        return {"items": items, "left_out": listed.get("left_out", [])}

    async def stream(self, request: Request, stream: ByteStream) -> None:
        """Streams: `events`, `logs`, `artifact` (from `offset` on, `length` bytes), `artifacts`: all of them
        one after the other, in the order of their list, and `keep`.
        """
        self._check_member(request)
        if request.method == "keep" and self._keep is not None:
            await self._keep(request, stream)
            return
        folder, journal = self._folder(request)
        follow = bool(request.head.get("follow")) and journal is not None and not journal.over
        match request.method:
            case "events":
                after = int(request.head.get("after") or 0)
                last = await self._events(folder, journal if follow else None, after, stream)
                if (journal is None or journal.over) and self._over(folder.parent.name, int(folder.name)):
                    await stream.write(_over_line(last))
            case "logs":
                await self._logs(
                    folder, journal if follow else None, str(request.head.get("stream", "both")), stream
                )
            case "artifact":
                await self._artifact(folder, request.head, stream)
            case "artifacts":
                listed = await asyncio.to_thread(_read_artifacts, folder)
                left = _count(request.head, "length")
                for item in listed["items"]:
                    left = await _send(folder, item, 0, left, stream)
            case other:
                raise HubInvalid(f"output has no stream {other!r}")

    def _check_member(self, request: Request) -> None:
        if request.peer is not None and not self._listed(request.peer):
            raise HubRefused("only members of the mesh are served output; join it first")

    def _folder(self, request: Request) -> tuple[Path, Journal | None]:
        task_id, attempt = request.head.get("task_id"), request.head.get("attempt")
        # Both become names of folders.
        if not is_id(task_id) or not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 0:
            raise HubInvalid("task_id and attempt name an attempt")
        folder = attempt_folder(self._tasks, str(task_id), attempt)
        if not folder.is_dir():
            if (why := self._gone(str(task_id))) is not None:
                raise HubNotFound(f"gone: {why}")
            raise HubNotFound(f"attempt {attempt} of task {task_id} has left nothing here")
        return folder, self._journal(str(task_id), attempt)

    async def _events(self, folder: Path, journal: Journal | None, after: int, stream: ByteStream) -> bytes:
        """Sends the events after that number; returns the last one."""
        rest = last = b""
        skipping = after > 0
        async for chunk in _chunks(folder, EVENTS, journal):
            *lines, rest = (rest + chunk).split(b"\n")
            last = lines[-1] if lines else last
            if skipping:
                lines = [line for line in lines if _number(line) > after]
                skipping = not lines
            if lines:
                await stream.write(b"\n".join(lines) + b"\n")
        return last

    async def _logs(self, folder: Path, journal: Journal | None, which: str, stream: ByteStream) -> None:
        if which in ("stdout", "stderr"):
            async for chunk in _chunks(folder, which, journal):
                await stream.write(chunk)
            return
        if which != "both":
            raise HubInvalid("stream is stdout, stderr or both")
        # The events know the order in which the two streams came.
        rest = b""
        async for chunk in _chunks(folder, EVENTS, journal):
            *lines, rest = (rest + chunk).split(b"\n")
            if out := b"".join(_output(line) for line in lines):
                await stream.write(out)

    async def _artifact(self, folder: Path, head: Mapping[str, Any], stream: ByteStream) -> None:
        path = str(head.get("path", ""))
        listed = await asyncio.to_thread(_read_artifacts, folder)
        item = next((item for item in listed["items"] if item["path"] == path), None)
        if item is None:
            raise HubNotFound(f"no artifact {path!r}")
        await _send(folder, item, _count(head, "offset") or 0, _count(head, "length"), stream)


def _count(head: Mapping[str, Any], name: str) -> int | None:
    value = head.get(name)
    if value is not None and (type(value) is not int or not 0 <= value <= _COUNT_MAX):
        raise HubInvalid(f"{name} is a number of bytes")
    return value


async def _send(
    folder: Path, item: Mapping[str, Any], offset: int, most: int | None, stream: ByteStream
) -> int | None:
    """Sends an artifact from an offset on, at most so many bytes; returns how many more there may be."""
    # Stored under a number; a name made by a task never reaches the file system.
    with (folder / ARTIFACT_FOLDER / item["file"]).open("rb") as file:
        file.seek(offset)
        while most != 0:
            size = _READ_BYTES if most is None else min(most, _READ_BYTES)
            chunk = await asyncio.to_thread(file.read, size)
            if not chunk:
                break
            await stream.write(chunk)
            most = most if most is None else most - len(chunk)
    return most


async def _chunks(folder: Path, name: str, journal: Journal | None) -> AsyncIterator[bytes]:
    if journal is not None:
        async for chunk in journal.follow(name):
            yield chunk
        return
    try:
        file = (folder / name).open("rb")
    except FileNotFoundError:
        return
    with file:
        while chunk := await asyncio.to_thread(file.read, _READ_BYTES):
            yield chunk


def _number(line: bytes) -> int:
    match = _NUMBER.match(line)
    return int(match.group(1)) if match else 0


def _over_line(last: bytes) -> bytes:
    """What follows the last event of an attempt that gets no more: how many there were, and its `end`."""
    ended = None
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        event = orjson.loads(last)
        ended = event["data"]["state"] if event["event"] == "end" else None
    return orjson.dumps({"over": {"events": _number(last), "ended": ended}}) + b"\n"


def _output(line: bytes) -> bytes:
    if b'"event":"output"' not in line[:80]:
        return b""
    data = orjson.loads(line)["data"]
    if "text" in data:
        return str(data["text"]).encode("utf-8", "surrogatepass")
    return base64.b64decode(data["base64"])


def _read_artifacts(folder: Path) -> dict[str, Any]:
    try:
        listed: dict[str, Any] = orjson.loads((folder / ARTIFACTS).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {"items": [], "left_out": []}
    return listed

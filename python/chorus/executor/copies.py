"""The second copy of what an attempt left (output and artifacts): the stream `keep` of the service `output`.

A copy is a folder like the executor's own: the same code serves it, and removes it with its task. Who gives
one opens the stream and reads a line {"have": bool}. When the other side does not have it, a line that lists
the files as [name, size] follows, and their bytes one after the other. The other side's second line,
{"kept": true}, says that all is on its disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from chorus.blobs.copies import Copies, Part, targets
from chorus.config.files import sync_folder
from chorus.executor import summary
from chorus.executor.journal import ARTIFACT_FOLDER, ARTIFACTS, EVENTS, RAW, attempt_folder
from chorus.executor.retention import may_go
from chorus.executor.room import Room
from chorus.executor.workspace import ARTIFACTS_MAX
from chorus.hub import (
    ByteStream,
    HubError,
    HubInvalid,
    HubRefused,
    HubTampered,
    HubTimeout,
    HubTooLarge,
    Request,
    disk_error,
)
from chorus.table.entry_types import SINCE
from chorus.table.reader import TableReader
from chorus.wire.ids import is_id, new_id

# A member that does not begin to answer within this is passed over.
ANSWER_S: Final = 2.0
# A whole copy, while nobody waits for it.
TRANSFER_S: Final = 600.0
# A result waits this long for its second copy, and never longer than this part of a lease: it has to count
# before the attempt is taken back.
BEFORE_RESULT_S: Final = 10.0
_LEASE_PART: Final = 0.25
# Output with its events, artifacts and their list: more than an executor keeps of an attempt.
BYTES_MAX: Final = 1024 * 1024 * 1024
# Copies that are taken at once; others wait for their turn.
_TAKEN_AT_ONCE: Final = 4
_LIST_MAX_BYTES: Final = 1024 * 1024
_LINE_MAX_BYTES: Final = 4096
_READ_BYTES: Final = 256 * 1024
# What is on its way here; a rename ends it.
ARRIVING: Final = ".arriving"
_NAME: Final = re.compile(
    rf"(?:{'|'.join(map(re.escape, (EVENTS, *RAW, ARTIFACTS)))}|{ARTIFACT_FOLDER}/[0-9]{{1,9}})"
)


class AttemptCopies:
    """Gives copies to other members and takes theirs. One per executor.

    `reason_gone` says why what a task left was removed here.
    """

    def __init__(
        self,
        room: Room,
        reason_gone: Callable[[str], str | None],
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._room, self._reason_gone, self._wall_ms = room, reason_gone, wall_ms
        self._tasks = room.settings.paths.tasks
        self._gate = asyncio.Semaphore(_TAKEN_AT_ONCE)
        self._copies = Copies(room.hub, room.settings.paths.table_db, room.log, self._here, self._send)

    async def run(self) -> None:
        """Sees to second copies until cancelled."""
        await asyncio.to_thread(shutil.rmtree, self._tasks / ARRIVING, True)
        await self._copies.run()

    async def before_result(self, task_id: str, attempt: int) -> str | None:
        """Makes the second copy of what the attempt left, in the time that its result may wait for it.

        Returns who took it, or None.
        """
        room, part = self._room, Part(task_id, attempt)
        mesh = room.table.mesh()
        if (
            mesh is None
            or mesh.version < SINCE["holders"]
            or not attempt_folder(self._tasks, task_id, attempt).is_dir()
        ):
            return None
        members = {member.peer: member.present for member in room.table.members()}
        try:
            async with asyncio.timeout(min(BEFORE_RESULT_S, mesh.settings.lease_s * _LEASE_PART)):
                return await self._copies.copy(part, targets(room.hub.peer_id, part, members))
        except TimeoutError:
            return None

    async def after_result(self, task_id: str, attempt: int, peer: str | None) -> None:
        """The result counts: the table learns who took the copy, or it is made later."""
        if peer is not None:
            with contextlib.suppress(HubError):
                await self._copies.name(Part(task_id, attempt), peer)
                return
        # An agent that is alone need not look again before another comes.
        if any(
            member.present and member.peer != self._room.hub.peer_id for member in self._room.table.members()
        ):
            self._copies.missed()

    async def look(self) -> list[Part]:
        """One look at what lies here; see `Copies`."""
        return await self._copies.look()

    # ---- what lies here, and giving it ------------------------------------------------------------

    def _here(self, reader: TableReader) -> Iterator[Part]:
        now, retention_ms = self._wall_ms(), int(self._room.settings.retention_s * 1000)
        try:
            kept = [path for path in self._tasks.iterdir() if is_id(path.name)]
        except FileNotFoundError:
            return
        for folder in kept:
            end = reader.task_end(folder.name)
            if end is None or may_go(end, now_ms=now, retention_ms=retention_ms, changed_ms=now):
                continue
            for place in folder.iterdir():
                # Beside those numbers nothing is named like one.
                if place.name.isdecimal() and reader.held.has_result(folder.name, int(place.name)):
                    yield Part(folder.name, int(place.name))

    async def _send(self, part: Part, peer: str) -> None:
        assert part.attempt is not None
        head = {"task_id": part.task_id, "attempt": part.attempt}
        try:
            async with asyncio.timeout(TRANSFER_S):
                opening = self._room.hub.open_stream("output", "keep", head, peer=peer, timeout=ANSWER_S)
                async with await opening as stream:
                    await self._give(attempt_folder(self._tasks, part.task_id, part.attempt), stream)
        except TimeoutError:
            raise HubTimeout("it does not take the copy in time") from None

    async def _give(self, folder: Path, stream: ByteStream) -> None:
        lines = _Incoming(stream)
        async with asyncio.timeout(ANSWER_S):
            have = await lines.object(_LINE_MAX_BYTES)
        if have.get("have") is True:
            return
        files = await asyncio.to_thread(_files, folder)
        await stream.write(orjson.dumps(files) + b"\n")
        for name, size in files:
            with (folder / name).open("rb") as file:
                while size and (chunk := await asyncio.to_thread(file.read, min(size, _READ_BYTES))):
                    await stream.write(chunk)
                    size -= len(chunk)
        await stream.end()
        if (await lines.object(_LINE_MAX_BYTES)).get("kept") is not True:
            raise HubTampered("it did not say that it kept the copy")

    # ---- taking it --------------------------------------------------------------------------------

    async def take(self, request: Request, stream: ByteStream) -> None:
        """Serves `keep` {task_id, attempt}: takes a copy from a member that holds what the attempt left."""
        task_id, attempt = self._checked(request)
        folder = attempt_folder(self._tasks, task_id, attempt)
        if folder.is_dir():
            await stream.write(b'{"have":true}\n')
            return
        async with self._gate:
            await stream.write(b'{"have":false}\n')
            aside = self._tasks / ARRIVING / new_id()
            try:
                async with asyncio.timeout(TRANSFER_S):
                    await self._take(stream, aside)
                await asyncio.to_thread(_place, aside, folder)
            except TimeoutError:
                raise HubTimeout("the copy did not arrive in time") from None
            except OSError as error:
                raise disk_error(f"the copy was not taken: {error.strerror or error}") from error
            finally:
                await asyncio.to_thread(shutil.rmtree, aside, True)
        await stream.write(b'{"kept":true}\n')

    def _checked(self, request: Request) -> tuple[str, int]:
        task_id, attempt = request.head.get("task_id"), request.head.get("attempt")
        if not is_id(task_id) or type(attempt) is not int or not 0 <= attempt < 2**31:
            raise HubInvalid("task_id and attempt name an attempt")
        held = self._room.table.held.holders(str(task_id), attempt)
        if request.peer not in [holder.peer for holder in held]:
            raise HubRefused("only the attempt's executor and who holds a copy give one")
        if (why := self._reason_gone(str(task_id))) is not None:
            raise HubRefused(f"nobody needs it: {why}")
        return str(task_id), attempt

    async def _take(self, stream: ByteStream, aside: Path) -> None:
        incoming = _Incoming(stream)
        files = _checked_files(await incoming.line(_LIST_MAX_BYTES))
        await asyncio.to_thread(self._check_room, sum(size for _, size in files))
        await asyncio.to_thread((aside / ARTIFACT_FOLDER).mkdir, parents=True)
        hashes = {}
        for name, size in files:
            hashes[name] = await _write(aside / name, incoming.take(size))
        await self._check_list(aside, hashes)

    def _check_room(self, size: int) -> None:
        # What others' tasks left takes no more than half of the room that this agent's own tasks have.
        self._tasks.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(self._tasks).free // 2:
            raise HubRefused("limit: the disk has no room for the copy")

    async def _check_list(self, folder: Path, hashes: dict[str, str]) -> None:
        """The artifacts are what their list says; a list too long for a result is kept as a blob as well."""
        if ARTIFACTS not in hashes:
            return
        listed = await asyncio.to_thread((folder / ARTIFACTS).read_bytes)
        try:
            said = orjson.loads(listed)
            items = [{key: item[key] for key in ("path", "size", "sha256", "mode")} for item in said["items"]]
            there = all(hashes.get(f"{ARTIFACT_FOLDER}/{i['file']}") == i["sha256"] for i in said["items"])
            left_out = list(said["left_out"])
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise HubTampered("the list of artifacts cannot be read") from None
        if not there:
            raise HubTampered("the artifacts are not those of their list")
        if not summary.fits_entry(items, left_out):
            await self._room.blobs.put_bytes(summary.artifact_list(items, left_out))


class _Incoming:
    """What comes over a stream: lines first, then pieces of known sizes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = b""

    async def line(self, bytes_max: int) -> bytes:
        """The next line without its end. Raises HubInvalid when it is too long or cut short."""
        while (end := self._held.find(b"\n")) < 0:
            chunk = await self._stream.read()
            if not chunk or len(self._held) > bytes_max:
                raise HubInvalid(f"the other side did not send a line of at most {bytes_max} bytes")
            self._held += chunk
        line, self._held = self._held[:end], self._held[end + 1 :]
        return line

    async def object(self, bytes_max: int) -> dict[str, Any]:
        """The next line, a JSON object."""
        try:
            value = orjson.loads(await self.line(bytes_max))
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise HubInvalid("the other side did not send a JSON object")
        return value

    async def take(self, size: int) -> AsyncIterator[bytes]:
        """The next so many bytes."""
        while size:
            chunk = self._held or await self._stream.read()
            if not chunk:
                raise HubInvalid("the copy is shorter than it was said to be")
            yield chunk[:size]
            self._held, size = chunk[size:], size - len(chunk[:size])


def _files(folder: Path) -> list[tuple[str, int]]:
    """The files of an attempt, as far as they are written now."""
    names = [name for name in (EVENTS, *RAW, ARTIFACTS) if (folder / name).is_file()]
    if (folder / ARTIFACT_FOLDER).is_dir():
        names += sorted(f"{ARTIFACT_FOLDER}/{path.name}" for path in (folder / ARTIFACT_FOLDER).iterdir())
    return [(name, (folder / name).stat().st_size) for name in names if _NAME.fullmatch(name)]


def _checked_files(line: bytes) -> list[tuple[str, int]]:
    try:
        files = [(name, size) for name, size in orjson.loads(line)]
        good = all(isinstance(name, str) and _NAME.fullmatch(name) for name, _ in files)
        good = good and all(type(size) is int and size >= 0 for _, size in files)
    except (orjson.JSONDecodeError, TypeError, ValueError):
        good = False
    if not good or len({name for name, _ in files}) != len(files):
        raise HubInvalid("the list of files names each once, with its size, as [name, size]")
    if len(files) > ARTIFACTS_MAX + len(RAW) + 2 or sum(size for _, size in files) > BYTES_MAX:
        raise HubTooLarge(f"a copy has at most {BYTES_MAX} bytes")
    return files


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> str:
    """Writes a file to the disk; returns its SHA-256."""
    digest = hashlib.sha256()

    def append(chunk: bytes) -> None:
        file.write(chunk)
        digest.update(chunk)

    def sync() -> None:
        file.flush()
        os.fsync(file.fileno())

    with path.open("xb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(append, chunk)
        await asyncio.to_thread(sync)
    return digest.hexdigest()


def _place(aside: Path, folder: Path) -> None:
    """Moves a whole copy to where it is served from."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    sync_folder(aside / ARTIFACT_FOLDER)
    sync_folder(aside)
    if not folder.exists():
        aside.rename(folder)
    sync_folder(folder.parent)
    sync_folder(folder.parent.parent)

"""Takes a task off a request: JSON, or multipart with its source and standard input, which go to disk as
they come.

What is too large for an entry becomes a blob here; whether the mesh takes the task, the coordinator says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from starlette.requests import Request

from chorus.api.bodies import check_charset, parse_json
from chorus.api.context import Context
from chorus.api.guard import JSON_MAX_BYTES, SOURCE_MAX_BYTES
from chorus.api.multipart import Begin, Data, End, PartEvent, parts
from chorus.api.problems import Problem
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge
from chorus.archives.gunzip import GZIP_MAGIC
from chorus.archives.tar import BLOCK_BYTES, is_header
from chorus.blobs import BlobSpaceFull
from chorus.hub import HubClosed, HubInvalid, HubTimeout, HubUnavailable, Reply
from chorus.wire.ids import new_id
from chorus.wire.offload import archive_of
from chorus.wire.task import TaskInvalid, TaskSubmission, check_entry_size, parse_task

# How long a submission waits for a leader before it says 503: an election with default timings fits in.
LEADER_WAIT_S: Final = 30.0
# What the commit, the second copy and the way there and back take beyond that wait.
SUBMIT_MARGIN_S: Final = 10.0
# A coordinator that was just killed is back within this.
REPEAT_PAUSE_S: Final = 0.2
_HEAD_BYTES: Final = BLOCK_BYTES
# How archives begin that people may take for one that fits.
_OTHER_ARCHIVES: Final = {
    b"PK": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
}


async def read_submission(context: Context, request: Request) -> TaskSubmission:
    """The task of a request, its source stored."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        value, blobs = await _read_parts(context, content_type, request.stream())
        return await _complete(context, value, blobs)
    if kind in ("application/json", ""):
        check_charset(content_type)
        return await _complete(context, parse_json(await request.body(), "the body"), {})
    raise Problem(
        415, "send the task as application/json, or as multipart/form-data with parts task, source and stdin"
    )


async def submit(context: Context, task: TaskSubmission) -> Reply:
    """Hands the task to the coordinator; repeated under its id while a killed one comes back."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEADER_WAIT_S + SUBMIT_MARGIN_S
    submitted_by = task.submitted_by or context.settings.agent_id
    head, body = {"submitted_by": submitted_by, "wait_s": LEADER_WAIT_S}, orjson.dumps(task.body())
    while True:
        left = deadline - loop.time()
        try:
            return await context.hub.call_service(
                "coordinator", "table.submit", head, body, timeout=max(1.0, left)
            )
        except (HubUnavailable, HubClosed):
            if left <= REPEAT_PAUSE_S or context.stopping.is_set():
                raise
        except HubInvalid as error:
            field, _, what = error.message.partition(": ")
            raise Problem(
                422, error.message, errors=[(field, what)] if what else (), code=error.code
            ) from None
        except HubTimeout as error:
            raise Problem(
                503,
                f"whether the task was taken is not known yet ({error.message}); "
                f"GET /api/v1/tasks/{task.task_id} will tell, and sending it again does no harm",
                headers={"Retry-After": "1"},
                task_id=task.task_id,
            ) from None
        await asyncio.sleep(REPEAT_PAUSE_S)


async def _complete(context: Context, value: object, blobs: dict[str, str]) -> TaskSubmission:
    """The task as the mesh takes it; `blobs` are the hashes of the parts that were stored, by their names."""
    if isinstance(value, dict):
        value = _with_stdin(_with_source(value, blobs.get("source")), blobs.get("stdin"))
        value.setdefault("task_id", None)
        value["task_id"] = value["task_id"] or new_id()
    task = _checked(value)
    archive = task.source.blob if task.source is not None else ""
    if not task.fits_entry:
        task = _checked(await _as_blobs(context, task))
    for blob in task.blobs:
        if not await context.blobs.keep(blob):
            message = f"this agent has no blob {blob}; send the archive itself as the multipart part source"
            raise Problem(422, "the source is not here", errors=[("source.sha256", message)])
    if archive:
        await _check_source(context, archive, task.resources.disk_mb)
    if task.stdin_sha256:
        _check_stdin(context, task.stdin_sha256, task.resources.disk_mb)
    try:
        check_entry_size(task)
    except TaskInvalid as error:
        raise _invalid(error) from None
    return task


async def _check_source(context: Context, sha256: str, disk_mb: int) -> None:
    """Refuses an archive that no sandbox would take, before there is a task of it."""
    try:
        await context.archives.check(sha256, context.blobs.path(sha256), bytes_max=disk_mb << 20)
    except ArchiveTooLarge as error:
        message = f"{error}; unpacked it has to fit on the sandbox's disk, resources.disk_mb: {disk_mb}"
        raise Problem(422, "the source is too large", errors=[("source", message)]) from None
    except ArchiveRefused as error:
        message = f"{error}; send a tar or tar.gz of files, folders and links inside it"
        raise Problem(422, "the source is no archive for a sandbox", errors=[("source", message)]) from None


def _check_stdin(context: Context, sha256: str, disk_mb: int) -> None:
    """Refuses what would not fit into the sandbox, where it is a file that the commands read."""
    size = context.blobs.path(sha256).stat().st_size
    if size > disk_mb << 20:
        message = f"it has {size} bytes and must fit on the sandbox's disk, resources.disk_mb: {disk_mb}"
        raise Problem(422, "the standard input is too large", errors=[("stdin", message)])


def _with_stdin(value: dict[str, Any], sha256: str | None) -> dict[str, Any]:
    if sha256 is None:
        return value
    if value.get("stdin") or value.get("stdin_sha256") not in (None, "", sha256):
        message = "leave it out: the part stdin is the standard input"
        raise Problem(422, "the task has two standard inputs", errors=[("stdin", message)])
    return {**value, "stdin_sha256": sha256}


def _with_source(value: dict[str, Any], sha256: str | None) -> dict[str, Any]:
    if sha256 is None:
        return value
    declared = value.get("source")
    if declared is None:
        return {**value, "source": {"kind": "archive", "sha256": sha256}}
    if not isinstance(declared, dict) or declared.get("kind") not in ("archive", "blob"):
        message = "leave it out, or say kind archive: the part source is the source"
        raise Problem(422, "the task has two sources", errors=[("source", message)])
    announced = declared.get("sha256")
    if isinstance(announced, str) and announced not in ("", sha256):
        message = f"the part source has SHA-256 {sha256}; the task says {announced[:64]}"
        raise Problem(422, "the source is not the one announced", errors=[("source.sha256", message)])
    # What is neither text nor absent is refused with the rest of the task's fields.
    return {**value, "source": {**declared, "sha256": announced or sha256}}


async def _as_blobs(context: Context, task: TaskSubmission) -> dict[str, Any]:
    """The task with inline files and standard input stored as blobs."""
    body = task.body()
    if task.source is not None and task.source.kind == "inline":
        archive = await asyncio.to_thread(archive_of, task.source.files)
        body["source"] = {"kind": "blob", "sha256": await _store(context, _one(archive))}
    if task.stdin:
        body["stdin_sha256"] = await _store(context, _one(task.stdin.encode()))
        body["stdin"] = ""
    return body


async def _read_parts(
    context: Context, content_type: str, stream: AsyncIterator[bytes]
) -> tuple[object, dict[str, str]]:
    task: object = None
    blobs: dict[str, str] = {}
    seen: set[str] = set()
    events = parts(content_type, stream)
    async for event in events:
        if not isinstance(event, Begin):
            continue
        if event.name in seen:
            raise Problem(422, f"the part {event.name!r} stands there twice; send it once")
        seen.add(event.name)
        if event.name == "task":
            task = parse_json(await _small(events), "the part task")
        elif event.name == "source":
            blobs["source"] = await _store(context, _source(events))
        elif event.name == "stdin":
            blobs["stdin"] = await _store(context, _plain(events, "stdin"))
        else:
            raise Problem(422, f"unknown part {event.name!r}; the parts are task, source and stdin")
    if "task" not in seen:
        raise Problem(422, "the part task is missing", errors=[("task", "required: the task as JSON")])
    return task, blobs


async def _small(events: AsyncIterator[PartEvent]) -> bytes:
    content = bytearray()
    async for event in events:
        if isinstance(event, Data):
            content += event.content
            if len(content) > JSON_MAX_BYTES:
                raise Problem(413, f"the part task is larger than {JSON_MAX_BYTES} bytes")
        elif isinstance(event, End):
            break
    return bytes(content)


async def _plain(events: AsyncIterator[PartEvent], name: str) -> AsyncIterator[bytes]:
    """The bytes of a part, up to the limit of a blob."""
    size = 0
    async for event in events:
        if isinstance(event, End):
            break
        if not isinstance(event, Data):
            continue
        size += len(event.content)
        if size > SOURCE_MAX_BYTES:
            message = f"the part {name} is larger than {SOURCE_MAX_BYTES} bytes"
            raise Problem(413, message, limit=SOURCE_MAX_BYTES)
        yield event.content


async def _source(events: AsyncIterator[PartEvent]) -> AsyncIterator[bytes]:
    """The bytes of the part, refused when they do not begin like an archive."""
    head = bytearray()
    checked = False
    async for content in _plain(events, "source"):
        if checked:
            yield content
            continue
        head += content
        if len(head) >= _HEAD_BYTES:
            _check_archive(head)
            checked = True
            yield bytes(head)
    if not checked:
        _check_archive(head)
        yield bytes(head)


def _check_archive(head: bytearray) -> None:
    # Old programs write no magic, and an archive of nothing has no header; the check of the whole tells.
    if head.startswith(GZIP_MAGIC) or is_header(bytes(head)) or (head and not any(head)):
        return
    kind = next((kind for magic, kind in _OTHER_ARCHIVES.items() if head.startswith(magic)), "")
    message = f"{f'it is {kind}' if kind else 'it is no tar'}; send a tar (POSIX or GNU) or a tar.gz"
    raise Problem(422, "the part source is no archive", errors=[("source", message)])


async def _store(context: Context, chunks: AsyncIterator[bytes]) -> str:
    try:
        return (await context.blobs.put(chunks, limit=SOURCE_MAX_BYTES)).sha256
    except BlobSpaceFull as full:
        detail = f"a part of the task was not stored: {full}; CHORUS_BLOBS_SIZE is the setting of that limit"
        raise Problem(507, detail, limit=full.limit_bytes) from None


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _checked(value: object) -> TaskSubmission:
    try:
        return parse_task(value)
    except TaskInvalid as error:
        raise _invalid(error) from None


def _invalid(error: TaskInvalid) -> Problem:
    return Problem(422, f"the task cannot be taken as it is: {error}", errors=error.problems)

"""Routes for the artifacts of a task: their list, each by its path, and all as one tar.

Who holds them may be any member: what it sends is held against the sizes and hashes of the result.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from chorus.api.context import Context, Here
from chorus.api.header_values import attachment
from chorus.api.holders import from_holder
from chorus.api.listing import Listing, listing
from chorus.api.output import check_kept, holder_away, until_stopped
from chorus.api.problems import Problem
from chorus.api.ranges import Unsatisfiable, not_modified, part
from chorus.api.tasks import check_task_id, json_response
from chorus.api.teller import OPEN_TIMEOUT_S
from chorus.hub import ByteStream, HubError
from chorus.table import view
from chorus.table.rows import TaskRow

_BLOCK_BYTES: Final = tarfile.BLOCKSIZE
# Two blocks of zeros end an archive.
_TAR_END: Final = bytes(2 * _BLOCK_BYTES)

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])

Tag = Annotated[str | None, Header(max_length=8192)]
_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"description": "the part that `Range` names", "content": {"application/octet-stream": {}}},
    304: {"description": "what `If-None-Match` names is what there is"},
}
_TAR: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"application/x-tar": {}}}}


@router.get("/{task_id}/artifacts")
async def get_artifacts(context: Here, task_id: str) -> Response:
    """What the task's newest attempt left: path, size, SHA-256 and mode of each; and what was left out."""
    _, listed = await _listed(context, task_id)
    return json_response({"items": listed.items, "left_out": listed.left_out, "next": None})


@router.get("/{task_id}/artifacts.tar", response_class=StreamingResponse, responses=_TAR)
@router.head("/{task_id}/artifacts.tar", include_in_schema=False)
async def get_all(context: Here, task_id: str, request: Request, if_none_match: Tag = None) -> Response:
    """All artifacts of the task's newest attempt as one tar, with their modes."""
    row, listed = await _listed(context, task_id)
    if not listed.items:
        raise Problem(404, f"task {row.task_id} has no artifacts")
    etag = f'"{hashlib.sha256(orjson.dumps(listed.items)).hexdigest()}"'
    heads = [_tar_head(item, (row.finished_at or 0) // 1000) for item in listed.items]
    length = sum(map(len, heads)) + sum(item["size"] + _padding(item) for item in listed.items)
    headers = {
        "Content-Length": str(length + len(_TAR_END)),
        "ETag": etag,
        "Content-Disposition": attachment(f"{row.task_id}.tar"),
    }
    if not_modified(if_none_match, etag):
        return Response(None, 304, {"ETag": etag})
    only_head = request.method == "HEAD"
    opened, content = await _open(context, row, "artifacts", {"length": 0} if only_head else {})
    if only_head:
        await opened.close()
        return Response(None, 200, headers, "application/x-tar")

    async def chunks() -> AsyncGenerator[bytes]:
        async with opened:
            for head, item in zip(heads, listed.items, strict=True):
                yield head
                digest = hashlib.sha256()
                async for chunk in content.take(item["size"]):
                    digest.update(chunk)
                    yield chunk
                if digest.hexdigest() != item["sha256"]:
                    raise HubError(f"artifact {item['path']!r} is not what its result says", code="tampered")
                yield bytes(_padding(item))
            yield _TAR_END

    return StreamingResponse(chunks(), media_type="application/x-tar", headers=headers)


@router.get("/{task_id}/artifacts/{path:path}", response_class=StreamingResponse, responses=_FOUND)
@router.head("/{task_id}/artifacts/{path:path}", include_in_schema=False)
async def get_artifact(
    context: Here,
    task_id: str,
    path: str,
    request: Request,
    if_none_match: Tag = None,
    range: Tag = None,
    if_range: Tag = None,
) -> Response:
    """The bytes of one artifact, or a part of them, from the agent that holds them."""
    row, listed = await _listed(context, task_id)
    item = next((item for item in listed.items if item["path"] == path), None)
    if item is None:
        raise Problem(404, f"task {row.task_id} has no artifact {path!r}; GET …/artifacts lists them")
    size, etag = item["size"], f'"{item["sha256"]}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Disposition": attachment(path)}
    if not_modified(if_none_match, etag):
        return Response(None, 304, {"ETag": etag})
    asked = None
    try:
        # Ranges are of a GET alone.
        asked = part(range, if_range, etag, size) if request.method == "GET" else None
    except Unsatisfiable:
        detail = f"the artifact has {size} bytes; ask for a range inside them"
        raise Problem(416, detail, headers={"Content-Range": f"bytes */{size}"}) from None
    start, length = asked or (0, size)
    only_head = request.method == "HEAD"
    named = {"path": path, "offset": start, "length": 0 if only_head else length}
    opened, content = await _open(context, row, "artifact", named)
    headers["Content-Length"] = str(length)
    if asked is not None:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    if only_head:
        await opened.close()
        return Response(None, 200, headers, "application/octet-stream")

    async def chunks() -> AsyncGenerator[bytes]:
        async with opened:
            async for chunk in content.take(length):
                yield chunk

    status = 200 if asked is None else 206
    return StreamingResponse(chunks(), status, headers, "application/octet-stream")


async def _listed(context: Context, task_id: str) -> tuple[TaskRow, Listing]:
    row = await context.task(check_task_id(task_id), newest=True)
    try:
        return row, await listing(context, row)
    except HubError as error:
        raise _not_had(context, row, error) from None


async def _open(
    context: Context, row: TaskRow, stream: str, named: Mapping[str, Any]
) -> tuple[ByteStream, _Content]:
    """The stream and its content, whose first bytes are here: before them nothing is promised."""
    check_kept(row)
    head = {"task_id": row.task_id, "attempt": row.attempt, **named}
    attempt = context.table.attempts(row.task_id)[-1]

    async def ask(peer: str) -> tuple[ByteStream, _Content]:
        opened = await context.hub.open_stream("output", stream, head, peer=peer, timeout=OPEN_TIMEOUT_S)
        content = _Content(until_stopped(context, opened))
        try:
            await content.fill()
        except BaseException:
            await opened.close()
            raise
        return opened, content

    try:
        return await from_holder(context.table, attempt, ask)
    except HubError as error:
        raise _not_had(context, row, error) from None


def _not_had(context: Context, row: TaskRow, error: HubError) -> Problem:
    return holder_away(context.table.attempts(row.task_id)[-1], error)


class _Content:
    """Takes pieces of known sizes off a stream of a member: not a byte more than was promised, and fewer are
    an answer cut short.
    """

    def __init__(self, chunks: AsyncGenerator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    async def fill(self) -> None:
        """Waits for the first bytes, or the end."""
        self._held = await anext(self._chunks, b"")

    async def take(self, size: int) -> AsyncGenerator[bytes]:
        """The next so many bytes. Raises HubError when they do not come."""
        while size:
            chunk = self._held or await anext(self._chunks, b"")
            if not chunk:
                raise HubError("the artifact is shorter than its result says", code="tampered")
            yield chunk[:size]
            self._held, size = chunk[size:], size - len(chunk[:size])


def _padding(item: Mapping[str, Any]) -> int:
    return -int(item["size"]) % _BLOCK_BYTES


def _tar_head(item: Mapping[str, Any], mtime: int) -> bytes:
    info = tarfile.TarInfo(item["path"])
    info.size, info.mode, info.mtime = item["size"], view.mode(dict(item)), mtime
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "replace")

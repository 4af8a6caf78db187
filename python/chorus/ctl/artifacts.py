"""`chorusctl artifacts`: lists a task's artifacts, saves them under their names, or prints them as a tar.

One that cannot be saved does not keep the others: it is named, and the exit code says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import sys
import tarfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

import httpx

from chorus.ctl.client import Client, Refused
from chorus.ctl.problems import FAILED, MESH_FAILED, USAGE, CtlError
from chorus.ctl.show import cell, print_json, print_table
from chorus.ctl.terminal import note, say_json, write_bytes
from chorus.wire.counts import counted

Item = dict[str, Any]

STDOUT: Final = "-"
_COPY_BYTES: Final = 256 * 1024
# Named one by one; `artifacts` lists them all.
_LEFT_OUT_MAX: Final = 10


def artifacts(client: Client, arguments: Namespace) -> int:
    """Lists a task's artifacts, or saves them with --output."""
    page = client.get(_base(arguments.task))
    if arguments.output is None:
        return _list(page, arguments)
    if arguments.path is None:
        if arguments.output == STDOUT:
            return _print(client, f"{_base(arguments.task)}.tar")
        return save_all(client, arguments.task, page["items"], Path(arguments.output))
    wanted = [item for item in page["items"] if item["path"] == arguments.path]
    if not wanted:
        raise CtlError(f"task {arguments.task} has no such artifact; chorusctl artifacts lists them")
    path = _path(arguments.task, arguments.path)
    if arguments.output == STDOUT:
        return _print(client, path)
    with _broken_off(), client.stream(path) as response:
        return _saved([(wanted[0], response.iter_raw(_COPY_BYTES))], wanted, Path(arguments.output))


def save_all(client: Client, task_id: str, items: list[Item], root: Path) -> int:
    """Saves all artifacts of a task below a folder; returns the exit code."""
    if not items:
        note(f"chorusctl: task {task_id} has no artifacts")
        return 0
    by_path = {item["path"]: item for item in items}
    with _broken_off(), client.stream(f"{_base(task_id)}.tar") as response:
        content = io.BufferedReader(_Answer(response), _COPY_BYTES)
        with tarfile.open(fileobj=content, mode="r|", encoding="utf-8") as archive:
            found = (
                (by_path[member.name], _pieces(archive.extractfile(member)))
                for member in archive
                if member.name in by_path and member.isfile()
            )
            return _saved(found, items, root)


def tell_left_out(task: dict[str, Any]) -> None:
    """Says what did not become an artifact."""
    left_out = (task.get("result") or {}).get("left_out") or []
    for item in left_out[:_LEFT_OUT_MAX]:
        name = f"{cell(item['path'])}: " if item["path"] else ""
        note(f"chorusctl: not kept: {name}{cell(item['reason'])}")
    if len(left_out) > _LEFT_OUT_MAX:
        more = len(left_out) - _LEFT_OUT_MAX
        note(f"chorusctl: {more} more were not kept; chorusctl artifacts {task['task_id']} lists them")


def _list(page: dict[str, Any], arguments: Namespace) -> int:
    if arguments.json:
        return print_json(page)
    columns = tuple((name, _column(name)) for name in ("path", "size", "mode", "sha256"))
    print_table(page["items"], columns)
    for item in page.get("left_out") or ():
        note(f"not kept: {cell(item['path'])}: {cell(item['reason'])}")
    return 0


def _column(name: str) -> Any:
    return lambda item: item.get(name)


def _base(task_id: str) -> str:
    return f"/api/v1/tasks/{quote(task_id, safe='')}/artifacts"


def _path(task_id: str, path: str) -> str:
    return f"{_base(task_id)}/{quote(path)}"


def _print(client: Client, path: str) -> int:
    """Exact bytes on standard output."""
    if sys.stdout.isatty():
        raise CtlError("-o -: a terminal is no place for this; send it to a file or a pipe", USAGE)
    with _broken_off(), client.stream(path) as response:
        for chunk in response.iter_raw(_COPY_BYTES):
            write_bytes(chunk)
    return 0


def _saved(found: Any, items: list[Item], root: Path) -> int:
    """Saves what comes; returns the exit code when some did not come or could not be saved."""
    missing = {item["path"] for item in items}
    for item, content in found:
        try:
            _save(item, content, root)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            note(f"chorusctl: artifact {cell(item['path'])} cannot be saved: {reason}")
            continue
        missing.discard(item["path"])
    saved = [item["size"] for item in items if item["path"] not in missing]
    of = counted(len(items), "artifact")
    note(f"saved {len(saved)} of {of} in {root}, {counted(sum(saved), 'byte')}")
    return FAILED if missing else 0


def _save(item: Item, content: Iterator[bytes], root: Path) -> None:
    """Raises OSError, and ValueError for a name that leads elsewhere and content that is another."""
    goal = root / item["path"]
    if not Path(os.path.normpath(goal)).is_relative_to(os.path.normpath(root)):
        raise ValueError(f"it leads out of {root}")
    goal.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, under a name that is short enough beside any.
    aside = goal.with_name(f".{secrets.token_hex(8)}.part")
    digest = hashlib.sha256()
    try:
        with aside.open("wb") as file:
            for chunk in content:
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != item["sha256"]:
            raise ValueError("it arrived damaged; try again")
        aside.chmod(int(item.get("mode") or "0644", 8) & 0o777)
        aside.replace(goal)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError, tarfile.TarError) as error:
        why = str(error) or type(error).__name__
        raise CtlError(f"the artifacts broke off: {why}; try again", MESH_FAILED) from None


def _pieces(file: IO[bytes] | None) -> Iterator[bytes]:
    while file is not None and (chunk := file.read(_COPY_BYTES)):
        yield chunk


class _Answer(io.RawIOBase):
    """An answer as the file that `tarfile` reads a stream from."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.iter_raw(_COPY_BYTES)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Takes what is there, at most a chunk; 0 at the end."""
        held = self._held or memoryview(next(self._chunks, b""))
        count = min(len(held), len(buffer))
        buffer[:count] = held[:count]
        self._held = held[count:]
        return count


def after_run(client: Client, task_id: str, arguments: Namespace) -> int:
    """After a run that asked for artifacts: says what was left out, and saves them where --output says.

    The exit code when something could not be had; 0 otherwise.
    """
    try:
        task = client.get(f"/api/v1/tasks/{task_id}")
        if arguments.json:
            result = task.get("result") or {}
            kept = {name: result.get(name) or [] for name in ("artifacts", "left_out")}
            say_json({"id": None, "event": "artifacts", "data": kept}, flush=True)
        else:
            tell_left_out(task)
        if arguments.output is None:
            return 0
        return save_all(
            client, task_id, (task.get("result") or {}).get("artifacts") or [], Path(arguments.output)
        )
    except Refused as error:
        note(f"chorusctl: the artifacts cannot be had: {error}")
        return MESH_FAILED

"""Has an agent leave its mesh when a process of it asked for that: done at a start, before anything runs.

Identity, unsent results, blobs and task folders stay. Votes, log and table move to `replaced/`; with some
departures what the table holds comes along in the carry file, whose entries the coordinator proposes in the
next mesh. Each step can be repeated, so that a start after a crash at any point goes on here; the note that
asked for it goes last.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from chorus.agent.folders import PRIVATE_FILE_MODE, move_aside, sync_folder, write_private
from chorus.agent.problems import INITIALIZE, StartupError
from chorus.config import MeshSettings, Paths
from chorus.process import membership
from chorus.process.departure import Departure, UnreadableDeparture, read_departure

if TYPE_CHECKING:
    from chorus.table.entries import Entry
    from chorus.table.store import TableStore

_TABLE = ("table.sqlite", "table.sqlite-wal", "table.sqlite-shm")
_VOTES = "core/raft.redb"
# Entries of the log that are read at once; the core bounds their bytes.
READ_ENTRIES = 1000
WRITE_BYTES = 1024 * 1024
HEAD_MAX_BYTES = 4096
# SQLite's word for a file that holds something else than it should.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# Entries of a log that nobody has open, from an index on: at most so many, as JSON.
ReadLog = Callable[[Path, int, int], list[bytes]]


class _DamagedLog(Exception):
    """The log holds something else than it should."""


def depart_if_asked(paths: Paths, own: MeshSettings, read_log: ReadLog | None = None) -> str:
    """Leaves the mesh when that was asked for; says so, or "".

    `own` are the settings for a mesh that this agent founds when those of the old one cannot be read. Raises
    StartupError when the folder does not let it.
    """
    try:
        departure = read_departure(paths.departure)
        if departure is None:
            return ""
        if (mesh := _mesh_of_votes(paths)) not in (None, departure.mesh):
            paths.departure.unlink()
            return f"asked to leave mesh {departure.mesh}, this agent stays in mesh {mesh}, where it is now"
        said = [f"this agent has left mesh {departure.mesh}: {departure.why}"]
        said += _take_along(paths, departure, own, read_log) if departure.takes_along else []
        kept = move_aside(paths, _left_behind(paths, departure), paths.departure)
        paths.departure.unlink()
        sync_folder(paths.data)
    except UnreadableDeparture as error:
        paths.departure.rename(paths.departure.with_suffix(".unreadable"))
        return f"{paths.departure} does not say what to do ({error}): this agent stays in its mesh"
    except membership.UnreadableVoteFile as error:
        raise StartupError(
            f"{INITIALIZE}: this agent is to leave its mesh, and its vote file {paths.vote_file}: {error}. "
            "Make it readable for this user; if it is lost, move it away"
        ) from None
    except (OSError, sqlite3.Error) as error:
        raise StartupError(
            f"{INITIALIZE}: this agent is to leave its mesh, and {paths.data} does not let it: {error}. "
            "Make the folder writable for this user, and see that its disk has room"
        ) from None
    return ". ".join([*said, f"What it had there is in {kept}"])


def _mesh_of_votes(paths: Paths) -> str | None:
    """The mesh that the vote file is of; None when there is none, or it is damaged."""
    if not paths.vote_file.exists():
        return None
    try:
        vote = membership.read_vote_file(paths.vote_file)
    except membership.DamagedVoteFile:
        return None
    return None if vote is None else vote.mesh


def _left_behind(paths: Paths, departure: Departure) -> list[str]:
    """What counts in the old mesh alone."""
    names = [_VOTES, *_TABLE]
    if departure.kind != "recover":
        # To found a mesh, and to bring everything into it, is over with the mesh that this was for.
        names.append(paths.founding_instruction.name)
        if _head_of(paths.carried).get("recovers") is True:
            names.append(paths.carried.name)
    return names


# What comes along


def _take_along(paths: Paths, departure: Departure, own: MeshSettings, read_log: ReadLog | None) -> list[str]:
    """Writes the carry file and, to found a mesh, what to found it with; says what could not be read."""
    if _head_of(paths.carried) == _head(departure):
        return []  # a start that ended early came as far as this, or further
    for last in (False, True):
        try:
            return _carry(paths, departure, own, read_log)
        except (sqlite3.DatabaseError, ValueError) as error:
            if isinstance(error, sqlite3.Error) and not _is_damage(error):
                raise
            if last:
                return [f"What its table held does not come along: {error}"]
            # The log makes the table anew.
            move_aside(paths, _TABLE, paths.departure)
    raise AssertionError("unreachable")


def _carry(paths: Paths, departure: Departure, own: MeshSettings, read_log: ReadLog | None) -> list[str]:
    """Raises sqlite3.DatabaseError and ValueError for a damaged table."""
    from chorus import core
    from chorus.table.store import TableStore

    said = []
    store = TableStore(paths.table_db)
    try:
        if store.mesh not in (None, departure.mesh):
            raise ValueError(f"the table is of mesh {store.mesh}")
        try:
            _apply_rest(store, paths.vote_file, departure.mesh, read_log or core.read_log)
        except _DamagedLog as error:
            said.append(f"Its log cannot be read beyond entry {store.applied} ({error})")
        if departure.kind == "recover":
            settings, chain = _of_mesh(store, departure.mesh, own)
            instruction = {"recovers": chain, "settings": settings.to_entry()}
            write_private(paths.founding_instruction, orjson.dumps(instruction).decode() + "\n")
        if store.mesh is None:
            raise ValueError("there is nothing in it")
        count = _write_carried(paths, departure, store)
    finally:
        store.close()
    return [*said, f"It brings {count} entries along"]


def _apply_rest(store: TableStore, vote_file: Path, mesh: str, read_log: ReadLog) -> None:
    """Applies what the log has beyond the table, committed or not. Raises _DamagedLog, and StartupError for
    a log that only a later release can read.
    """
    from chorus.core import CoreError
    from chorus.table.store import TableGap, TableTooNew

    if not vote_file.exists():
        return
    try:
        while lines := read_log(vote_file, store.applied + 1, READ_ENTRIES):
            store.apply_batch([_entry(line, mesh) for line in lines])
            if store.blocked is not None:
                raise store.blocked
    except TableTooNew as error:
        raise StartupError(f"{INITIALIZE}: this agent is to leave its mesh, and {error}") from None
    except TableGap as error:
        raise _DamagedLog(f"there is a gap in it: {error}") from None
    except CoreError as error:
        if getattr(error, "code", "") != "tampered":
            raise membership.UnreadableVoteFile(str(error)) from None
        raise _DamagedLog(str(error)) from None


def _entry(line: bytes, mesh: str) -> Entry:
    from chorus.table.entries import Entry

    said = orjson.loads(line)
    body = said["body"]
    if said["type"] == "found" and isinstance(body, dict):
        # As the coordinator does: the mesh's id stands in the signed envelope.
        body = {**body, "mesh": mesh}
    return Entry(said["index"], said["stamp"], said["type"], said["id"], said["author"], said["seen"], body)


def _of_mesh(store: TableStore, mesh: str, own: MeshSettings) -> tuple[MeshSettings, list[str]]:
    """The mesh's settings, and the mesh with those that it went on from, the newest first."""
    from chorus.table.records import Mesh

    known = store.get(Mesh, "mesh")
    if known is None:
        return own, [mesh]
    return MeshSettings.of_entry(known.settings), [mesh, *getattr(known, "recovers", ())]


def _write_carried(paths: Paths, departure: Departure, store: TableStore) -> int:
    """Writes the carry file in one step; returns the count of its entries."""
    aside = paths.carried.with_name(f".{paths.carried.name}.new")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    count = 0
    with os.fdopen(handle, "wb", buffering=WRITE_BYTES) as file:
        for line in itertools.chain([orjson.dumps(_head(departure))], _lines(paths, departure, store)):
            file.write(line + b"\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    aside.rename(paths.carried)
    sync_folder(paths.data)
    return count - 1


def _lines(paths: Paths, departure: Departure, store: TableStore) -> Iterator[bytes]:
    """The entries: what the table holds, then what an earlier departure brought and this mesh lacks still."""
    export = import_module("chorus.table.export").export
    recovers = departure.kind == "recover"
    for line in export(store, origin=departure.mesh, recovers=recovers, own=None):
        yield orjson.dumps({"id": line.id, "type": line.type, "body": line.body})
    if paths.carried.exists():
        yield from _not_brought(paths.carried, store)


def _not_brought(carried: Path, store: TableStore) -> Iterator[bytes]:
    """The lines of an earlier carry file that mean something beside the table's own."""
    from chorus.table.records import Known

    with carried.open("rb") as earlier:
        earlier.readline()
        for line in earlier:
            try:
                said = orjson.loads(line)
                # A version that is in the table got another number there, and would come twice. What else is
                # there already counts once.
                brought = said["type"] == "import_version" and store.get(Known, said["id"]) is not None
            except (ValueError, KeyError, TypeError):
                continue  # nobody could propose it either
            if not brought:
                yield line.rstrip(b"\n")


def _head(departure: Departure) -> dict[str, Any]:
    """The first line of the carry file."""
    return {"origin": departure.mesh, "recovers": departure.kind == "recover"}


def _head_of(path: Path) -> dict[str, Any]:
    """The first line of a carry file; {} when there is none."""
    try:
        with path.open("rb") as file:
            head = orjson.loads(file.readline(HEAD_MAX_BYTES))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return head if isinstance(head, dict) else {}


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether it is about what the file holds; the table's own error for that has no code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGED

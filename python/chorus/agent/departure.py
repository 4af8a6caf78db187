"""Has an agent leave its mesh when a process of it asked for that: done at a start, before anything runs.

Identity, unsent results, blobs and task folders stay. Votes, log and table move to `replaced/`; with some
departures what the table holds comes along in the carry file, whose entries the coordinator proposes in the
next mesh. Each step can be repeated, so that a start after a crash at any point goes on here; the note that
asked for it goes last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from chorus.agent.folders import move_aside
from chorus.agent.problems import INITIALIZE, StartupError
from chorus.config import MeshSettings, Paths
from chorus.config.files import new_private, sync_folder, write_private
from chorus.process import membership
from chorus.process.departure import Departure, UnreadableDeparture, read_departure
from chorus.table.carried import Header, header_of, read_line
from chorus.wire.counts import counted

if TYPE_CHECKING:
    from chorus.table.entries import Entry
    from chorus.table.store import TableStore

_TABLE = ("table.sqlite", "table.sqlite-wal", "table.sqlite-shm")
_VOTES = "core/raft.redb"
# Entries of the log that are read at once; the core bounds their bytes.
READ_ENTRIES = 1000
# SQLite's word for a file that holds something else than it should.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# Entries of a log that nobody has open, from an index on: at most so many, as JSON.
ReadLog = Callable[[Path, int, int], list[bytes]]
PeerOfKey = Callable[[Path], str]


class Departed(NamedTuple):
    """What a start says of a departure, and the mesh that this agent must not join again right away."""

    said: str = ""
    left: str = ""


class _DamagedLog(Exception):
    """The log holds something else than it should."""


def depart_if_asked(
    paths: Paths, peer_of_key: PeerOfKey, own: MeshSettings, read_log: ReadLog | None = None
) -> Departed:
    """Leaves the mesh when that was asked for; says so.

    `peer_of_key` gives the peer id of an identity key. `own` are the settings for a mesh that this agent
    founds when those of the old one cannot be read. Raises StartupError when the folder does not let it.
    """
    try:
        departure = read_departure(paths.departure)
        if departure is None:
            return Departed()
        if (mesh := _mesh_of_votes(paths)) not in (None, departure.mesh):
            paths.departure.unlink()
            return Departed(
                f"asked to leave mesh {departure.mesh}, this agent stays in mesh {mesh}, where it is now"
            )
        said = [f"this agent has left mesh {departure.mesh}: {departure.why}"]
        if departure.takes_along:
            said += _Carrying(paths, departure, peer_of_key, own, read_log).write()
        kept = move_aside(paths, _left_behind(paths, departure), paths.departure)
        paths.departure.unlink()
        sync_folder(paths.data)
    except UnreadableDeparture as error:
        paths.departure.rename(paths.departure.with_suffix(".unreadable"))
        return Departed(f"{paths.departure} does not say what to do ({error}): this agent stays in its mesh")
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
    # One that was removed joins the same mesh anew.
    left = "" if departure.kind == "removed" else departure.mesh
    return Departed(". ".join([*said, f"What it had there is in {kept}"]), left)


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
        if (header := header_of(paths.carried)) is not None and header.recovers:
            names.append(paths.carried.name)
    return names


class _Carrying:
    """What comes along: the carry file and, to found a mesh, what to found it with."""

    def __init__(
        self,
        paths: Paths,
        departure: Departure,
        peer_of_key: PeerOfKey,
        own: MeshSettings,
        read_log: ReadLog | None,
    ) -> None:
        self._paths, self._mesh = paths, departure.mesh
        self._header = Header(departure.mesh, departure.kind == "recover")
        self._peer_of_key, self._own, self._read_log = peer_of_key, own, read_log

    def write(self) -> list[str]:
        """Writes both; says, in sentences, what comes along and what could not be read."""
        if header_of(self._paths.carried) == self._header:
            return []  # a start that ended early came as far as this, or further
        for last in (False, True):
            try:
                return self._write()
            except (sqlite3.DatabaseError, ValueError) as error:
                if isinstance(error, sqlite3.Error) and not _is_damage(error):
                    raise
                if last:
                    return [f"What its table held does not come along: {error}"]
                # The log makes the table anew.
                move_aside(self._paths, _TABLE, self._paths.departure)
        raise AssertionError("unreachable")

    def _write(self) -> list[str]:
        """Raises sqlite3.DatabaseError and ValueError for a damaged table."""
        from chorus.table.store import TableStore

        said = []
        store = TableStore(self._paths.table_db)
        try:
            if store.mesh not in (None, self._mesh):
                raise ValueError(f"the table is of mesh {store.mesh}")
            try:
                self._apply_rest(store)
            except _DamagedLog as error:
                said.append(f"Its log cannot be read beyond entry {store.applied} ({error})")
            if self._header.recovers:
                instruction = orjson.dumps(self._founding(store)).decode()
                write_private(self._paths.founding_instruction, instruction + "\n")
            if store.mesh is None:
                raise ValueError("there is nothing in it")
            count = self._write_lines(self._lines(store))
        finally:
            store.close()
        return [*said, f"It brings {counted(count, 'entry', 'entries')} along"]

    def _apply_rest(self, store: TableStore) -> None:
        """Applies what the log has beyond the table, committed or not.

        Raises _DamagedLog, and StartupError for a log that only a later release can read.
        """
        from chorus import core
        from chorus.table.store import TableGap, TableTooNew

        read_log = self._read_log or core.read_log
        try:
            while lines := read_log(self._paths.vote_file, store.applied + 1, READ_ENTRIES):
                store.apply_batch([_entry(line, self._mesh) for line in lines])
                if store.blocked is not None:
                    raise store.blocked
        except TableTooNew as error:
            raise StartupError(f"{INITIALIZE}: this agent is to leave its mesh, and {error}") from None
        except TableGap as error:
            raise _DamagedLog(f"there is a gap in it: {error}") from None
        except core.CoreError as error:
            if getattr(error, "code", "") != "tampered":
                raise membership.UnreadableVoteFile(str(error)) from None
            raise _DamagedLog(str(error)) from None

    def _founding(self, store: TableStore) -> dict[str, Any]:
        """What the new mesh is founded with: the settings of the old one, and which meshes it goes on from,
        the newest first.
        """
        from chorus.table.records import Mesh

        known = store.get(Mesh, "mesh")
        settings = self._own if known is None else MeshSettings.of_entry(known.settings)
        earlier = () if known is None else known.recovers
        return {"recovers": [self._mesh, *earlier], "settings": settings.to_entry()}

    def _write_lines(self, lines: Iterable[bytes]) -> int:
        """Writes the carry file in one step, a line at a time; returns how many follow the header."""
        count = 0
        with new_private(self._paths.carried) as file:
            file.write(self._header.encode())
            for line in lines:
                file.write(line)
                count += 1
        sync_folder(self._paths.data)
        return count

    def _lines(self, store: TableStore) -> Iterator[bytes]:
        """What the table holds, and what an earlier departure brought and this mesh lacks still."""
        from chorus.table.export import export
        from chorus.table.imports import is_there

        peer = self._peer_of_key(self._paths.identity_key)
        for line in export(store, origin=self._mesh, recovers=self._header.recovers, own=peer):
            yield line.encode()
        if not self._paths.carried.exists():
            return
        with self._paths.carried.open("rb") as earlier:
            earlier.readline()
            for encoded in earlier:
                try:
                    line = read_line(encoded)
                    there = is_there(store, line.type, line.body)
                except (ValueError, KeyError):
                    continue  # nobody could propose it either
                if not there:
                    yield line.encode()


def _entry(line: bytes, mesh: str) -> Entry:
    from chorus.table.entries import Entry

    said = orjson.loads(line)
    entry = Entry(
        said["index"], said["stamp"], said["type"], said["id"], said["author"], said["seen"], said["body"]
    )
    return entry.of_mesh(mesh)


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether it is about what the file holds; the table's own error for that has no code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGED

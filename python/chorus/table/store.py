"""The table in SQLite, written by the coordinator alone: applies entries in order, each exactly once.

The rules are `transitions.apply`; this module owns the file, its transactions and the applied index in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from chorus.table.bounds import CANCEL_KEPT_MS
from chorus.table.effects import Drop, Outcome
from chorus.table.entries import Entry
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Attempt, Ballot, Counter, Member, Mesh, Record, Task, key_of
from chorus.table.schema import FORMS, INDEXES, SCHEMA_VERSION
from chorus.table.transitions import SEEN_MAX_AGE, apply

R = TypeVar("R", bound=Record)

# Records read again and again while a task is open; more than this are forgotten and read from disk.
CACHE_MAX_RECORDS = 20_000
# How many entries go by between two sweeps of what no rule asks for any more.
SWEEP_EVERY_ENTRIES = 1_000
WAL_KEPT_BYTES = 16 * 1024 * 1024

_CACHED: frozenset[type[Record]] = frozenset({Task, Attempt, Member, Mesh, Counter})


class TableGap(Exception):
    """An entry came that is not the next one. Nothing is ever skipped."""


class TableForm(Exception):
    """The file was written by a later release, with another form of the table."""


class TableTooNew(Exception):
    """The mesh raised its table to a version that this release does not know. Applying stops: skipping what
    comes with it would make another table.
    """

    def __init__(self, index: int, version: int) -> None:
        super().__init__(
            f"entry {index} raises the mesh's table to version {version}, and this release knows version"
            f" {TABLE_VERSION}: install a newer one on this agent"
        )
        self.index = index
        self.version = version


class TableStore:
    """The one writer of the table in `path`.

    `blocked` is the error that stopped applying: a version of the table that this release does not know. What
    came before stays applied. `rebuilt` says that the file had an older form and was emptied: the log is
    applied from its first entry on, so that all agents of this release come to the same table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocked: TableTooNew | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL: a power cut may undo the last transactions but leaves the file whole, and the applied index
        # is part of each of them. The log, synced before an entry counts as committed, feeds them again.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        self.rebuilt = self._create()
        self.applied = int(self._db.execute("SELECT value FROM meta WHERE name = 'applied'").fetchone()[0])
        self._swept = self.applied
        self._cache: dict[tuple[type[Record], tuple[Any, ...]], Record | None] = {}
        self._dirty: dict[tuple[type[Record], tuple[Any, ...]], Record | None] = {}

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @property
    def mesh(self) -> str | None:
        """The mesh whose table this is; None before the founding entry was applied."""
        mesh = self.get(Mesh, "mesh")
        return mesh.mesh if mesh is not None else None

    def get(self, kind: type[R], *key: Any) -> R | None:
        """One record, as the entries applied so far left it."""
        place = (cast("type[Record]", kind), key)
        if place in self._dirty:
            return cast("R | None", self._dirty[place])
        if place in self._cache:
            return cast("R | None", self._cache[place])
        form = FORMS[place[0]]
        row = self._db.execute(form.select, key).fetchone()
        try:
            record = form.record(row) if row is not None else None
        except ValueError as error:
            # Not what was written: the disk's fault, and never that of the entry which is being applied.
            raise sqlite3.DatabaseError(f"the table's file is damaged in {kind.TABLE}") from error
        if kind in _CACHED:
            self._cache[place] = record
        return cast("R | None", record)

    def apply_batch(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Applies entries in one transaction. Fewer outcomes than entries: see `blocked`.

        A disk error is raised and leaves the table as it was before the batch.
        """
        if self.blocked is not None:
            raise self.blocked
        outcomes: list[Outcome] = []
        applied, stamp = self.applied, 0
        try:
            for entry in entries:
                if entry.index <= applied:
                    outcomes.append(Outcome(False, "applied before", repeated=True))
                    continue
                if entry.index != applied + 1:
                    raise TableGap(f"entry {entry.index} after {applied}")
                outcome = apply(self, entry)
                if outcome.beyond is not None:
                    self.blocked = TableTooNew(entry.index, outcome.beyond)
                    break
                self._take(outcome)
                outcomes.append(outcome)
                applied, stamp = entry.index, entry.stamp_ms
            if applied > self.applied:
                self._commit(applied, stamp)
        except BaseException:
            # What is cached may hold what was never committed.
            self._cache.clear()
            raise
        finally:
            self._dirty.clear()
        return outcomes

    def records(self, kind: type[R]) -> Iterable[R]:
        """All records of a kind, in the order of their keys."""
        return list(self.select(kind))

    def select(self, kind: type[R], *, order: str | None = None, **where: Any) -> Iterator[R]:
        """Records of a kind, one at a time, by their keys or by another column; `where` names columns."""
        form = FORMS[cast("type[Record]", kind)]
        condition = " AND ".join(f"{name} = ?" for name in where) or "1"
        rows = self._db.execute(
            f"SELECT {', '.join(form.names)} FROM {kind.TABLE} WHERE {condition}"
            f" ORDER BY {order or ', '.join(kind.KEY)}",
            tuple(where.values()),
        )
        for row in rows:
            yield cast("R", form.record(row))

    def open_tasks(self) -> list[Task]:
        """The tasks that have not ended, oldest first."""
        form = FORMS[Task]
        columns = ", ".join(form.names)
        rows = self._db.execute(f"SELECT {columns} FROM tasks WHERE finished_at IS NULL ORDER BY idx")
        return [cast("Task", form.record(row)) for row in rows]

    def unrecorded_ballots(self) -> list[Ballot]:
        """The votes that go on, or whose outcome has no record yet."""
        form = FORMS[Ballot]
        rows = self._db.execute(
            f"SELECT {', '.join(form.names)} FROM ballots WHERE concluded IS NULL ORDER BY hash"
        )
        return [cast("Ballot", form.record(row)) for row in rows]

    def open_attempts_of(self, peer: str) -> int:
        """How many attempts a member has under way."""
        sql = "SELECT count(*) FROM attempts WHERE agent = ? AND finished_at IS NULL"
        return int(self._db.execute(sql, (peer,)).fetchone()[0])

    def _take(self, outcome: Outcome) -> None:
        for effect in outcome.effects:
            if isinstance(effect, Drop):
                self._dirty[effect.kind, effect.key] = None
            else:
                self._dirty[type(effect), key_of(effect)] = effect

    def _commit(self, applied: int, stamp: int) -> None:
        upserts: dict[type[Record], list[tuple[Any, ...]]] = {}
        for (kind, _), record in self._dirty.items():
            if record is not None:
                upserts.setdefault(kind, []).append(FORMS[kind].row(record))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for kind, rows in upserts.items():
                self._db.executemany(FORMS[kind].upsert, rows)
            for (kind, key), record in self._dirty.items():
                if record is None:
                    where = " AND ".join(f"{name} = ?" for name in kind.KEY)
                    self._db.execute(f"DELETE FROM {kind.TABLE} WHERE {where}", key)
            if applied - self._swept >= SWEEP_EVERY_ENTRIES:
                self._db.execute("DELETE FROM known WHERE idx < ?", (applied - SEEN_MAX_AGE,))
                self._db.execute("DELETE FROM cancels WHERE at_ms < ?", (stamp - CANCEL_KEPT_MS,))
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'applied'", (applied,))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if applied - self._swept >= SWEEP_EVERY_ENTRIES:
            self._swept = applied
        self.applied = applied
        if len(self._cache) > CACHE_MAX_RECORDS:
            self._cache.clear()
        self._cache.update({place: record for place, record in self._dirty.items() if place[0] in _CACHED})

    def _create(self) -> bool:
        form = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if form > SCHEMA_VERSION:
            raise TableForm(f"{self.path} has form {form}, this release reads {SCHEMA_VERSION}")
        older = 0 < form < SCHEMA_VERSION
        self._db.execute("BEGIN IMMEDIATE")
        if older:
            # In place and in one transaction: the other processes read this very file.
            for item in FORMS.values():
                self._db.execute(f"DROP TABLE IF EXISTS {item.kind.TABLE}")
            self._db.execute("DROP TABLE IF EXISTS meta")
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('applied', 0)")
        for item in FORMS.values():
            self._db.execute(item.create)
        for index in INDEXES:
            self._db.execute(index)
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._db.execute("COMMIT")
        return older

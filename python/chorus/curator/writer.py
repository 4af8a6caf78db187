"""The index file's one writer: documents, what is still to be fetched, and how far the table was read.

All three change together, so that nothing is lost or forgotten by a kill. A file that is damaged, of another
form, mesh or reader is thrown away: the table and the DHT have everything that was in it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from chorus.curator.documents import CONTENT, TOMBSTONE, Document
from chorus.curator.form import (
    CONTENT_WORDS,
    DECISION_WORDS,
    DOCUMENT_COLUMNS,
    FORM_VERSION,
    TABLES,
)
from chorus.curator.words import spread

WAL_KEPT_BYTES = 16 * 1024 * 1024
_INSERT = (
    f"INSERT OR IGNORE INTO docs ({', '.join(DOCUMENT_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(DOCUMENT_COLUMNS))})"
)
_OF_THE_DISK = frozenset(
    [
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
    ]
)


@dataclass(frozen=True, slots=True)
class Pending:
    """Something that the table lists and that is to be fetched; `listed` says where the table has it."""

    id: int
    listed: dict[str, Any]
    tries: int = 0


class IndexWriter:
    """Owns the file at `path`. `whose` names the reader: with other keys other records can be read.

    Calls may come from any thread, one at a time.
    """

    def __init__(self, path: Path, whose: str) -> None:
        self.path = path
        self.whose = whose
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def interrupt(self) -> None:
        """Ends what another thread is doing here, with an error there."""
        self._db.interrupt()

    def scanned(self) -> int:
        """The index of the last entry of the table whose record is here or pending."""
        return int(self._meta("scanned") or 0)

    def counts(self) -> dict[str, int]:
        """How many documents there are and are pending, and how many records were skipped or refused."""
        pending = self._db.execute("SELECT count(*) FROM pending").fetchone()[0]
        documents, skipped, refused = (int(self._meta(n) or 0) for n in ("documents", "skipped", "refused"))
        return {"documents": documents, "pending": pending, "skipped": skipped, "refused": refused}

    def sound(self) -> bool:
        """Whether the file is whole. Reads all of it."""
        try:
            return bool(self._db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            return False

    def discard(self) -> None:
        """Closes the file and removes it; a new writer begins with an empty one."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        _remove(self.path)

    def belongs_to(self, mesh: str) -> bool:
        """Makes the file that of a mesh; False when it is another's already."""
        known = self._meta("mesh")
        if known is None:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('mesh', ?)", (mesh,))
        return known in (None, mesh)

    def queue(self, items: Sequence[Pending], scanned: int) -> None:
        """Remembers what is to be fetched, and that the table was read so far."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO pending VALUES (?, ?, 0, 0)",
                [(item.id, orjson.dumps(item.listed)) for item in items],
            )
            self._set("scanned", scanned)

    def due(self, now_ms: int, limit: int, wait_max_ms: int) -> list[Pending]:
        """What may be fetched now, the newest first: it is asked for soonest."""
        # A clock that was set back must not make anything wait for what it was set back by.
        rows = self._db.execute(
            "SELECT id, listed, tries FROM pending WHERE due_ms <= ? OR due_ms > ? ORDER BY id DESC LIMIT ?",
            (now_ms, now_ms + wait_max_ms, limit),
        ).fetchall()
        return [Pending(id, orjson.loads(listed), tries) for id, listed, tries in rows]

    def next_due_ms(self) -> int | None:
        """When the next of what is pending may be fetched."""
        due = self._db.execute("SELECT min(due_ms) FROM pending").fetchone()[0]
        return None if due is None else int(due)

    def settle(
        self,
        documents: Iterable[Document],
        skipped: Sequence[int] = (),
        refused: Sequence[int] = (),
        again: Sequence[tuple[int, int]] = (),
    ) -> None:
        """What came of fetching: documents, ids not for us or not believed, and (id, when to try again)."""
        with self._transaction():
            done = [self._add(document) for document in documents]
            for name, ids in (("skipped", skipped), ("refused", refused)):
                if ids:
                    self._set(name, int(self._meta(name) or 0) + len(ids))
            gone = [(id,) for id in (*done, *skipped, *refused)]
            self._db.executemany("DELETE FROM pending WHERE id = ?", gone)
            self._db.executemany(
                "UPDATE pending SET tries = tries + 1, due_ms = ? WHERE id = ?",
                [(due, id) for id, due in again],
            )

    def _add(self, document: Document) -> int:
        if document.kind in (CONTENT, TOMBSTONE) and not self._newest(document):
            return document.id
        document = replace(document, title=spread(document.title), body=spread(document.body))
        values = tuple(getattr(document, name) for name in DOCUMENT_COLUMNS)
        if self._db.execute(_INSERT, values).rowcount:
            id = document.id
            if document.kind != TOMBSTONE:
                words = CONTENT_WORDS if document.kind == CONTENT else DECISION_WORDS
                self._db.execute(
                    f"INSERT INTO {words} (rowid, title, body) VALUES (?, ?, ?)",
                    (id, document.title, document.body),
                )
            self._db.executemany(
                "INSERT OR IGNORE INTO files VALUES (?, ?)", [(name, id) for name in document.files]
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO supersedes VALUES (?, ?, ?, ?)",
                [(address, id, document.task, document.author) for address in document.supersedes],
            )
            self._set("documents", int(self._meta("documents") or 0) + 1)
        return document.id

    def _newest(self, document: Document) -> bool:
        """Makes room for the newest version of an address: no older one is found any more."""
        known = self._db.execute(
            "SELECT id, version, kind, title, body FROM docs WHERE address = ? AND kind IN (?, ?)",
            (document.address, CONTENT, TOMBSTONE),
        ).fetchall()
        if any(version >= (document.version or 0) for _, version, *_ in known):
            return False
        for id, _, kind, title, body in known:
            if kind == CONTENT:
                self._db.execute(
                    f"INSERT INTO {CONTENT_WORDS} ({CONTENT_WORDS}, rowid, title, body)"
                    " VALUES ('delete', ?, ?, ?)",
                    (id, title, body),
                )
            self._db.execute("DELETE FROM docs WHERE id = ?", (id,))
            self._db.execute("DELETE FROM files WHERE id = ?", (id,))
        self._set("documents", int(self._meta("documents") or 0) - len(known))
        return True

    def _meta(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _set(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                # What a power cut undoes is fetched again: `scanned` goes back with it.
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
                if self._made(db):
                    return db
            except sqlite3.DatabaseError as error:
                if not damaged(error):
                    db.close()
                    raise
            db.close()
            _remove(self.path)
        raise OSError(f"no index can be kept at {self.path}")

    def _made(self, db: sqlite3.Connection) -> bool:
        form = db.execute("PRAGMA user_version").fetchone()[0]
        if form == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.execute("BEGIN IMMEDIATE")
            for statement in TABLES:
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('whose', ?)", (self.whose,))
            db.execute(f"PRAGMA user_version = {FORM_VERSION}")
            db.execute("COMMIT")
            return True
        if form != FORM_VERSION:
            return False
        whose = db.execute("SELECT value FROM meta WHERE name = 'whose'").fetchone()
        return bool(whose is not None and whose[0] == self.whose)


def damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether the error speaks of what is in the file, and not of the disk or of who else uses it."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY) & 0xFF not in _OF_THE_DISK


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)

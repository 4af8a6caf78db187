"""Discussions on disk: each session, what was said in it in order, and the records that are still to be
published. One SQLite file, synced at every commit, used by the coordinator alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

Kind = Literal["message", "help", "advice", "alert", "record"]

# Beyond these the sessions that are over go, the oldest first.
SESSIONS_MAX: Final = 1_000
KEPT_MS: Final = 30 * 24 * 3600 * 1000
# What is said in one session besides the messages of its discussion, which has bounds of its own.
ITEMS_MAX: Final = 200

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
  session_id TEXT PRIMARY KEY, task_id TEXT NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL,
  title TEXT NOT NULL, goal TEXT NOT NULL, project TEXT NOT NULL, participants TEXT NOT NULL,
  period_ms INTEGER NOT NULL, escalation_ms INTEGER NOT NULL, opened_at INTEGER NOT NULL,
  outcome TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', ended_at INTEGER,
  plan TEXT NOT NULL DEFAULT '', escalated INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_opened ON sessions(opened_at, session_id);
CREATE INDEX IF NOT EXISTS sessions_task ON sessions(task_id);
CREATE INDEX IF NOT EXISTS sessions_open ON sessions(outcome) WHERE outcome = '';
CREATE TABLE IF NOT EXISTS items (
  session_id TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, data BLOB NOT NULL,
  at_ms INTEGER NOT NULL, published INTEGER, PRIMARY KEY (session_id, n)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS items_id ON items(session_id, kind, id);
CREATE INDEX IF NOT EXISTS items_unpublished ON items(published) WHERE published = 0;
CREATE TABLE IF NOT EXISTS records (
  id TEXT PRIMARY KEY, session_id TEXT NOT NULL, facts BLOB NOT NULL, address TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_due ON records(session_id) WHERE address IS NULL;
"""
_COLUMNS: Final = (
    "session_id, task_id, attempt, owner, title, goal, project, participants, period_ms, escalation_ms,"
    " opened_at, outcome, reason, ended_at, plan, escalated"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM sessions"
# What a file of an earlier version lacks.
_LATER_COLUMNS: Final = {"plan": "TEXT NOT NULL DEFAULT ''", "escalated": "INTEGER NOT NULL DEFAULT 0"}


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One discussion. Times are milliseconds since 1970; `outcome` is "" until it is concluded.

    `plan` (the last one) and `escalated` follow from what was said; kept here, a list has them without it.
    """

    session_id: str
    task_id: str
    attempt: int
    owner: str
    title: str
    goal: str
    project: str
    participants: tuple[str, ...]
    period_ms: int
    escalation_ms: int
    opened_at: int
    outcome: str = ""
    reason: str = ""
    ended_at: int | None = None
    plan: str = ""
    escalated: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """The n-th thing of a session, from 1. `published` counts how often this agent has published what it
    said itself; None for what others said.
    """

    session_id: str
    n: int
    kind: Kind
    id: str
    data: dict[str, Any]
    at_ms: int
    published: int | None = None


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record of this agent's: `facts` say what it is made of, `address` where it is once it is listed."""

    id: str
    session_id: str
    facts: dict[str, Any]
    address: str | None = None


class HmmmStore:
    """The file at `path`. Raises sqlite3.Error when the disk fails."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        present = {str(row[1]) for row in self._db.execute("PRAGMA table_info(sessions)")}
        for name in _LATER_COLUMNS.keys() - present:
            self._db.execute(f"ALTER TABLE sessions ADD COLUMN {name} {_LATER_COLUMNS[name]}")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    # Sessions

    def session(self, session_id: str) -> SessionRow | None:
        """One session."""
        rows = self._db.execute(f"{_SELECT} WHERE session_id = ?", (session_id,)).fetchall()
        return _session(rows[0]) if rows else None

    def open_sessions(self) -> list[SessionRow]:
        """Those that are not concluded."""
        return [_session(row) for row in self._db.execute(f"{_SELECT} WHERE outcome = ''")]

    def sessions(
        self, *, task_id: str | None = None, limit: int = 50, before: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Sessions, newest first; `before` is the time and id of the last one on the page before."""
        where, values = ["1"], list[Any]()
        if task_id is not None:
            where.append("task_id = ?")
            values.append(task_id)
        if before is not None:
            where.append("(opened_at, session_id) < (?, ?)")
            values += before
        sql = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY opened_at DESC, session_id DESC"
        return [_session(row) for row in self._db.execute(f"{sql} LIMIT {int(limit)}", values)]

    def begin(self, row: SessionRow) -> SessionRow:
        """Keeps a session unless it is there already; which one counts. Makes room for it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            known = self.session(row.session_id)
            if known is None:
                self._make_room(row.opened_at)
                values = (
                    row.session_id, row.task_id, row.attempt, row.owner, row.title, row.goal, row.project,
                    orjson.dumps(row.participants).decode(), row.period_ms, row.escalation_ms, row.opened_at,
                    row.outcome, row.reason, row.ended_at, row.plan, row.escalated,
                )  # fmt: skip
                marks = ", ".join("?" * len(values))
                self._db.execute(f"INSERT INTO sessions ({_COLUMNS}) VALUES ({marks})", values)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return known or row

    def _make_room(self, now_ms: int) -> None:
        due = "SELECT session_id FROM records WHERE address IS NULL"
        over = f"ended_at IS NOT NULL AND session_id NOT IN ({due})"
        count = self._db.execute("SELECT count(*) FROM sessions").fetchone()[0]
        gone = self._db.execute(
            f"SELECT session_id FROM sessions WHERE {over} AND opened_at < ?", (now_ms - KEPT_MS,)
        ).fetchall()
        if (too_many := count - len(gone) - SESSIONS_MAX + 1) > 0:
            gone += self._db.execute(
                f"SELECT session_id FROM sessions WHERE {over} AND opened_at >= ? ORDER BY opened_at LIMIT ?",
                (now_ms - KEPT_MS, too_many),
            ).fetchall()
        for (session_id,) in gone:
            for table in ("items", "records", "sessions"):
                self._db.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))

    def conclude(self, session_id: str, outcome: str, reason: str, now_ms: int) -> None:
        """How a discussion ended; what was said first stays."""
        self._db.execute(
            "UPDATE sessions SET outcome = ?, reason = ?, ended_at = ? WHERE session_id = ? AND outcome = ''",
            (outcome, reason, now_ms, session_id),
        )

    def describe(self, session_id: str, plan: str, escalated: bool) -> None:
        """What follows from what was said so far; written when it has changed."""
        sql = "UPDATE sessions SET plan = ?, escalated = ? WHERE session_id = ?"
        values = (plan, escalated, session_id, plan, escalated)
        self._db.execute(f"{sql} AND (plan, escalated) != (?, ?)", values)

    # What was said

    def add(
        self, session_id: str, kind: Kind, id: str, data: dict[str, Any], at_ms: int, *, own: bool = False
    ) -> Item | None:
        """The next item of a session; None when it is there already, or the session holds no more."""
        sql = "SELECT coalesce(max(n), 0) FROM items WHERE session_id = ?"
        n = self._db.execute(sql, (session_id,)).fetchone()[0] + 1
        full = n > ITEMS_MAX and kind != "message"
        if full or self.item(session_id, kind, id) is not None:
            return None
        item = Item(session_id, n, kind, id, data, at_ms, 0 if own else None)
        values = (session_id, n, kind, id, orjson.dumps(data), at_ms, item.published)
        self._db.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        return item

    def items(self, session_id: str, after: int = 0, kind: Kind | None = None) -> list[Item]:
        """What was said in a session after item number `after`."""
        sql = "SELECT * FROM items WHERE session_id = ? AND n > ?" + (" AND kind = ?" if kind else "")
        values = (session_id, after, kind) if kind else (session_id, after)
        return [_item(row) for row in self._db.execute(f"{sql} ORDER BY n", values)]

    def item(self, session_id: str, kind: Kind, id: str) -> Item | None:
        """One thing by its id."""
        sql = "SELECT * FROM items WHERE session_id = ? AND kind = ? AND id = ?"
        rows = self._db.execute(sql, (session_id, kind, id)).fetchall()
        return _item(rows[0]) if rows else None

    def unpublished(self) -> list[Item]:
        """The messages that this agent said and nobody was told yet, oldest first; at most 100."""
        sql = "SELECT * FROM items WHERE published = 0 AND kind = 'message' ORDER BY at_ms, n LIMIT 100"
        return [_item(row) for row in self._db.execute(sql)]

    def published(self, item: Item) -> None:
        """It was published once more."""
        self._db.execute(
            "UPDATE items SET published = published + 1 WHERE session_id = ? AND n = ?",
            (item.session_id, item.n),
        )

    def ids(self, kind: Kind, limit: int) -> Iterable[str]:
        """The ids of the newest items of a kind in all sessions, each once."""
        sql = "SELECT id FROM items WHERE kind = ? GROUP BY id ORDER BY max(at_ms) DESC LIMIT ?"
        return [str(row[0]) for row in self._db.execute(sql, (kind, limit))]

    # Records

    def put_record(self, row: RecordRow) -> None:
        """Keeps what a record is to say, unless it is there; it is then published."""
        self._db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (row.id, row.session_id, orjson.dumps(row.facts), row.address),
        )

    def advance_record(self, id: str, facts: dict[str, Any], address: str | None = None) -> None:
        """What is known of a record now; with `address` it is listed."""
        self._db.execute(
            "UPDATE records SET facts = ?, address = ? WHERE id = ?", (orjson.dumps(facts), address, id)
        )

    def record(self, id: str) -> RecordRow | None:
        """One record."""
        rows = self._db.execute("SELECT * FROM records WHERE id = ?", (id,)).fetchall()
        return _record(rows[0]) if rows else None

    def addresses(self, ids: Collection[str]) -> dict[str, str]:
        """Where those of these records are that are listed, by id."""
        marks = ", ".join("?" * len(ids))
        rows = self._db.execute(f"SELECT id, address FROM records WHERE id IN ({marks})", tuple(ids))
        return {str(id): str(address) for id, address in rows if address}

    def has_due(self, session_id: str) -> bool:
        """Whether a record of this session is not listed yet."""
        sql = "SELECT 1 FROM records WHERE session_id = ? AND address IS NULL LIMIT 1"
        return self._db.execute(sql, (session_id,)).fetchone() is not None

    def records_due(self) -> Iterator[RecordRow]:
        """Those that are not listed yet."""
        rows = self._db.execute("SELECT * FROM records WHERE address IS NULL").fetchall()
        return (_record(row) for row in rows)


def _session(row: tuple[Any, ...]) -> SessionRow:
    session_id, task_id, attempt, owner, title, goal, project, participants, *rest = row
    rest[-1] = bool(rest[-1])
    peers = tuple(orjson.loads(participants))
    return SessionRow(session_id, task_id, attempt, owner, title, goal, project, peers, *rest)


def _item(row: tuple[Any, ...]) -> Item:
    session_id, n, kind, id, data, at_ms, published = row
    return Item(session_id, n, kind, id, orjson.loads(data), at_ms, published)


def _record(row: tuple[Any, ...]) -> RecordRow:
    return RecordRow(row[0], row[1], orjson.loads(row[2]), row[3])

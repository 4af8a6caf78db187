"""What must still be said to the mesh, on disk: results and the steps that follow them, through any
restart.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

# result -> decision -> done (the row is gone). What follows a refused result is nothing: it was superseded.
Step = Literal["result", "decision"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
  task_id TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  step TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  body BLOB NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY (task_id, attempt)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One attempt's word to the mesh: the body of its result, and the facts for its decision record."""

    task_id: str
    attempt: int
    step: Step
    entry_id: str
    body: dict[str, Any]
    record: dict[str, Any]


class Outbox:
    """One SQLite file, synced at every commit. Used from one process; calls may come from threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)

    def put(self, item: Item) -> None:
        """Keeps a result before it is offered."""
        self._write(
            "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?)",
            item.task_id,
            item.attempt,
            item.step,
            item.entry_id,
            orjson.dumps(item.body),
            orjson.dumps(item.record),
        )

    def advance(self, item: Item, step: Step, record: dict[str, Any], entry_id: str) -> None:
        """The item's next step, with what it needs."""
        self._write(
            "UPDATE outbox SET step = ?, record = ?, entry_id = ? WHERE task_id = ? AND attempt = ?",
            step,
            orjson.dumps(record),
            entry_id,
            item.task_id,
            item.attempt,
        )

    def done(self, task_id: str, attempt: int) -> None:
        """Everything was said."""
        self._write("DELETE FROM outbox WHERE task_id = ? AND attempt = ?", task_id, attempt)

    def items(self) -> list[Item]:
        """What is left to say."""
        with self._lock:
            rows = self._db.execute(
                "SELECT task_id, attempt, step, entry_id, body, record FROM outbox"
            ).fetchall()
        return [
            Item(task_id, attempt, step, entry_id, orjson.loads(body), orjson.loads(record))
            for task_id, attempt, step, entry_id, body, record in rows
        ]

    def get(self, task_id: str, attempt: int) -> Item | None:
        """One attempt's item."""
        return next((i for i in self.items() if (i.task_id, i.attempt) == (task_id, attempt)), None)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def _write(self, sql: str, *values: Any) -> None:
        with self._lock:
            self._db.execute(sql, values)

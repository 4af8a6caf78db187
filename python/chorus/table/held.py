"""Who holds what of tasks, as other processes see it: the inputs of a task, and what its attempts left.

Members that were removed hold nothing here. No query's cost grows with the table, but that of `lost_with`,
which is asked once for each member that was removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from chorus.table.records import INPUTS
from chorus.table.rows import OPEN_ATTEMPTS
from chorus.table.schema import SOURCE_BLOB, STDIN_BLOB

_HOLDERS = """
SELECT m.peer, m.agent_id, m.present FROM json_each(coalesce(
  (SELECT peers FROM holdings WHERE task_id = ?1 AND attempt = ?2),
  CASE ?2 WHEN -1 THEN (SELECT holders FROM tasks WHERE task_id = ?1)
    ELSE (SELECT json_array(agent) FROM attempts WHERE task_id = ?1 AND attempt = ?2) END,
  '[]')) h JOIN members m ON m.peer = h.value ORDER BY h.key
"""
_LOST_WITH = """
SELECT count(*) FROM tasks t WHERE t.agent = ? AND t.finished_at >= ?
  AND NOT EXISTS (SELECT 1 FROM members WHERE peer = t.agent)
  AND NOT EXISTS (SELECT 1 FROM removed WHERE task_id = t.task_id)
  AND EXISTS (SELECT 1 FROM attempts
    WHERE task_id = t.task_id AND attempt = t.attempt AND result IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM holdings h, json_each(h.peers) p JOIN members m ON m.peer = p.value
    WHERE h.task_id = t.task_id AND h.attempt = t.attempt)
"""

Query = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Holder:
    """A listed member that holds something; `present` says whether it is there now."""

    peer: str
    agent_id: str
    present: bool


class Held:
    """Reads through the table reader's connection. An `attempt` that is None means the task's inputs."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def holders(self, task_id: str, attempt: int | None = None) -> list[Holder]:
        """The members that hold it, those that had it first at the beginning."""
        rows = self._query(_HOLDERS, task_id, INPUTS if attempt is None else attempt)
        return [Holder(peer, agent_id, bool(present)) for peer, agent_id, present in rows]

    def inputs(self, task_id: str) -> dict[str, str]:
        """The blobs that a task names as `source` and `stdin`, by their SHA-256."""
        rows = self._query(f"SELECT {SOURCE_BLOB}, {STDIN_BLOB} FROM bodies WHERE task_id = ?", task_id)
        named = zip(("source", "stdin"), rows[0] if rows else (), strict=False)
        return {name: str(sha256) for name, sha256 in named if sha256}

    def tasks_with_input(self, sha256: str) -> list[str]:
        """The tasks that name a blob as their source or their standard input."""
        rows = self._query(
            " UNION ".join(
                f"SELECT task_id FROM bodies WHERE {blob} = ?1 AND {blob} <> ''"
                for blob in (SOURCE_BLOB, STDIN_BLOB)
            ),
            sha256,
        )
        return [str(row[0]) for row in rows]

    def has_result(self, task_id: str, attempt: int) -> bool:
        """Whether the attempt has ended with a result."""
        rows = self._query(
            "SELECT finished_at IS NOT NULL AND result IS NOT NULL FROM attempts"
            " WHERE task_id = ? AND attempt = ?",
            task_id,
            attempt,
        )
        return bool(rows and rows[0][0])

    def lost(self, task_id: str) -> list[str]:
        """What of a task no member holds any more: `source`, `stdin`, and of its newest attempt `output` and
        `artifacts`.
        """
        inputs = self.inputs(task_id)
        gone = list(inputs) if inputs and not self.holders(task_id) else []
        rows = self._query(
            "SELECT a.attempt, a.state, a.claimed_at, a.result FROM tasks t"
            " JOIN attempts a ON a.task_id = t.task_id AND a.attempt = t.attempt"
            " LEFT JOIN removed r ON r.task_id = t.task_id WHERE t.task_id = ? AND r.task_id IS NULL",
            task_id,
        )
        for attempt, state, claimed_at, result in rows:
            if claimed_at is None or state in OPEN_ATTEMPTS or self.holders(task_id, attempt):
                continue
            gone.append("output")
            said = orjson.loads(result) if result is not None else {}
            if said.get("artifacts") or said.get("artifacts_blob"):
                gone.append("artifacts")
        return gone

    def lost_with(self, peer: str, since_ms: int) -> int:
        """Of how many tasks that ended since then a removed member alone held the output."""
        rows = self._query(_LOST_WITH, peer, since_ms)
        return int(rows[0][0]) if rows else 0

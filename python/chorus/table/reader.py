"""The table as other processes see it: read-only, every answer from one consistent moment.

No query's cost grows with the number of finished tasks. Nothing here waits for the writer (SQLite's WAL).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import orjson

from chorus.config import MeshSettings
from chorus.table.held import Held
from chorus.table.rows import (
    FINISHED_STATES,
    LONG_FIELDS,
    AttemptRow,
    BallotRow,
    BlobUse,
    DecisionRow,
    FormerRow,
    MemberRow,
    MeshRow,
    Page,
    StateChange,
    TaskEnd,
    TaskRow,
    TaskStory,
    VoteRow,
)
from chorus.table.schema import ARTIFACTS_BLOB, PROJECT_OF_ADDRESS, SOURCE_BLOB, STDIN_BLOB
from chorus.table.versions import Versions
from chorus.wire.times import rfc3339

PAGE_MAX = 500
_BUSY_MS = 2000
# Fields of a task that the table keeps as milliseconds since 1970.
_TIMES = ("start_by", "submitted_at")


def _agent_id_of(peer: str) -> str:
    """The agent id of a member, or of a former one, in SQL."""
    named = (f"(SELECT agent_id FROM {kind} WHERE peer = {peer})" for kind in ("members", "former_members"))
    return f"coalesce({', '.join(named)})"


_TASK = f"""
SELECT t.task_id, b.task, t.state, t.reason, t.attempt, t.agent, {_agent_id_of("t.agent")}, t.submitter,
  t.submitted_by, t.vouched_by, t.holders, t.created_at, t.claimed_at, t.started_at, t.finished_at,
  t.pulling_s, a.result, t.decision, t.lost, r.at_ms, r.by, t.idx
FROM tasks t JOIN bodies b ON b.task_id = t.task_id
LEFT JOIN attempts a ON a.task_id = t.task_id AND a.attempt = t.attempt
LEFT JOIN removed r ON r.task_id = t.task_id
"""
# A task and its result may have some hundred KiB each. A list leaves out what can be long, and SQLite does
# that without the interpreter. What it does not read as JSON (deep nesting) is shown without its details.
_SHORT_TASK = (
    "CASE WHEN json_valid(b.task) THEN json_remove(b.task"
    + "".join(f", '$.{name}'" for name in LONG_FIELDS)
    + ") ELSE '{}' END"
)
SUMMARY_MAX_CHARS = 500
_SHORT_RESULT = (
    "CASE WHEN a.result IS NULL THEN NULL WHEN json_valid(a.result) THEN json_object("
    + ", ".join(f"'{name}', json_extract(a.result, '$.{name}')" for name in ("exit_code", "ended_by"))
    + f", 'summary', substr(json_extract(a.result, '$.summary'), 1, {SUMMARY_MAX_CHARS})) ELSE '{{}}' END"
)
_LISTED_TASK = _TASK.replace("b.task,", f"{_SHORT_TASK},").replace("a.result,", f"{_SHORT_RESULT},")
_ATTEMPT = f"""
SELECT a.task_id, a.attempt, a.agent, {_agent_id_of("a.agent")}, a.state, a.reason, a.awarded_at,
  a.claimed_at, a.started_at, a.finished_at, a.image, a.pulling_s, a.result
FROM attempts a
"""
_MEMBER = """
SELECT m.peer, m.raft_id, m.agent_id, m.role, m.expertise, m.specialization, m.max_tasks, m.languages,
  m.images, m.accepting, m.reason, m.version, m.voter, m.present,
  (SELECT count(*) FROM attempts a WHERE a.agent = m.peer AND a.finished_at IS NULL), m.joined_at,
  m.table_version, m.models, m.model_reason
FROM members m
"""
_DECISION = f"""
SELECT d.hash, d.address, d.kind, d.task_id, d.attempt, d.author, {_agent_id_of("d.author")}, d.idx, d.at_ms
FROM decisions d
"""
_FORMER = "SELECT peer, agent_id, role, raft_id, joined_at, removed_at, reason FROM former_members"


class DecisionFilter(TypedDict, total=False):
    """Which decision records are wanted; what is missing or None does not choose."""

    task_id: str | None
    # A peer or agent id.
    agent: str | None
    # As addresses write it.
    project: str | None
    kind: str | None
    since_ms: int | None


class TableReader:
    """Answers questions about the table in `path`. Before the coordinator made it, everything is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        # What lies at UCXL addresses.
        self.ucxl = Versions(self._query)
        # Who holds what of tasks.
        self.held = Held(self._query)

    def close(self) -> None:
        """Closes the connection; the next question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def another(self) -> TableReader:
        """A reader of the same file with a connection of its own, for another thread."""
        return TableReader(self._path)

    def applied(self) -> int:
        """The index of the newest applied entry."""
        rows = self._query("SELECT value FROM meta WHERE name = 'applied'")
        return int(rows[0][0]) if rows else 0

    def mesh(self) -> MeshRow | None:
        """The mesh, or None while this agent is in none."""
        rows = self._query(
            f"SELECT s.mesh, s.settings, s.leader, {_agent_id_of('s.leader')}, s.term, s.founded_at,"
            " s.version, s.recovers FROM mesh s"
        )
        if not rows:
            return None
        mesh, settings, leader, agent_id, term, founded_at, version, recovers = rows[0]
        said = MeshSettings.of_entry(orjson.loads(settings))
        before = tuple(orjson.loads(recovers))
        return MeshRow(mesh, said, leader, agent_id, term, founded_at, version, before)

    def task(self, task_id: str) -> TaskRow | None:
        """One task."""
        rows = self._query(_TASK + " WHERE t.task_id = ?", task_id)
        return _task(rows[0]) if rows else None

    def tasks(
        self,
        *,
        state: str | None = None,
        agent: str | None = None,
        project: str | None = None,
        submitted_by: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[TaskRow]:
        """Tasks in short, newest first: without what of a task and of its result can be long.

        `agent` is a peer id or an agent id. A bad cursor raises ValueError.
        """
        where, values = ["1"], list[Any]()
        if state is not None:
            where.append("t.state = ?")
            values.append(state)
        if agent is not None:
            where.append("t.agent IS NOT NULL AND t.agent = ?")
            values.append(self._peer_of(agent))
        if project is not None:
            where.append("t.project <> '' AND t.project = ?" if project else "t.project = ?")
            values.append(project)
        if submitted_by is not None:
            where.append("t.submitted_by = ?")
            values.append(submitted_by)
        rows, after = self._page(_LISTED_TASK, "t.idx", where, values, limit, cursor)
        return Page([_task(row) for row in rows], after)

    def open_tasks(self) -> list[TaskRow]:
        """All tasks that have not ended, oldest first; the mesh's cap bounds them."""
        return [_task(row) for row in self._query(_TASK + " WHERE t.finished_at IS NULL ORDER BY t.idx")]

    def attempts(self, task_id: str) -> list[AttemptRow]:
        """A task's attempts, first to last."""
        return [
            _attempt(row)
            for row in self._query(_ATTEMPT + " WHERE a.task_id = ? ORDER BY a.attempt", task_id)
        ]

    def history(self, task_id: str) -> list[StateChange]:
        """A task's states with their times, first to last."""
        rows = self._query(
            "SELECT attempt, state, at_ms, reason FROM changes WHERE task_id = ? ORDER BY n", task_id
        )
        return [StateChange(*row) for row in rows]

    def story(self, task_id: str) -> TaskStory | None:
        """A task with its attempts and states as they were at one moment."""
        row = self.task(task_id)
        if row is None or self._connection is None:
            return None
        self._connection.execute("BEGIN")
        try:
            row = self.task(task_id)
            attempts, changes = self.attempts(task_id), self.history(task_id)
        finally:
            self._connection.execute("ROLLBACK")
        return TaskStory(row, tuple(attempts), tuple(changes)) if row is not None else None

    def running_on(self, peer: str) -> list[AttemptRow]:
        """The open attempts awarded to `peer`."""
        return [
            _attempt(row)
            for row in self._query(
                _ATTEMPT + " WHERE a.agent = ? AND a.finished_at IS NULL ORDER BY a.awarded_at", peer
            )
        ]

    def ended_by(self, peer: str, up_to: int = 500) -> int:
        """How many tasks ended at `peer`, counted no further than `up_to`."""
        rows = self._query(
            "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE agent IS NOT NULL AND agent = ?"
            " AND finished_at IS NOT NULL LIMIT ?)",
            peer,
            up_to,
        )
        return int(rows[0][0]) if rows else 0

    def task_end(self, task_id: str) -> TaskEnd | None:
        """When a task ended and was removed, without the rest of it; None when no such task is known."""
        rows = self._query(
            "SELECT t.finished_at, r.at_ms FROM tasks t LEFT JOIN removed r ON r.task_id = t.task_id"
            " WHERE t.task_id = ?",
            task_id,
        )
        return TaskEnd(*rows[0]) if rows else None

    def blob_use(self, sha256: str) -> BlobUse | None:
        """How tasks use a blob; None when no task names it."""
        total, unfinished, last = 0, 0, 0
        for named_in, blob in (
            ("bodies", SOURCE_BLOB), ("bodies", STDIN_BLOB), ("attempts", ARTIFACTS_BLOB),
        ):  # fmt: skip
            rows = self._query(
                f"SELECT count(*), sum(t.finished_at IS NULL), max(t.finished_at) FROM {named_in} n"
                f" JOIN tasks t ON t.task_id = n.task_id WHERE {blob} = ? AND {blob} <> ''",
                sha256,
            )
            if rows and rows[0][0]:
                total, unfinished = total + rows[0][0], unfinished + rows[0][1]
                last = max(last, rows[0][2] or 0)
        return BlobUse(unfinished > 0, last) if total else None

    def members(self) -> list[MemberRow]:
        """All members by the order of their joining."""
        return [_member(row) for row in self._query(_MEMBER + " ORDER BY m.raft_id")]

    def member(self, peer: str) -> MemberRow | None:
        """The member with that peer id."""
        rows = self._query(_MEMBER + " WHERE m.peer = ?", peer)
        return _member(rows[0]) if rows else None

    def name_of(self, peer: str) -> str:
        """The agent id of a member; of any other peer, or of a member that has none, the peer id."""
        member = self.member(peer)
        return member.agent_id if member is not None and member.agent_id else peer

    def member_by_agent(self, agent_id: str) -> MemberRow | None:
        """The member with that agent id: a present one before one that is away, then the newest to join."""
        order = "ORDER BY m.present DESC, m.raft_id DESC LIMIT 1"
        rows = self._query(f"{_MEMBER} WHERE m.agent_id = ? {order}", agent_id)
        return _member(rows[0]) if rows else None

    def _peer_of(self, agent: str) -> str:
        """The peer that an agent id stands for in filters; what no agent is called is a peer id itself."""
        if (member := self.member_by_agent(agent)) is not None:
            return member.peer
        former = self._query(
            "SELECT peer FROM former_members WHERE agent_id = ? ORDER BY removed_at DESC, peer LIMIT 1", agent
        )
        return str(former[0][0]) if former else agent

    def former_members(self) -> list[FormerRow]:
        """Those that were removed and have not joined again, the newest first."""
        return [FormerRow(*row) for row in self._query(_FORMER + " ORDER BY removed_at DESC, peer")]

    def agent_names(self) -> dict[str, str]:
        """The agent id of every peer that is or was a member, as history shows them."""
        former = self._query("SELECT peer, agent_id FROM former_members")
        return dict(former + self._query("SELECT peer, agent_id FROM members"))

    def totals(self) -> dict[str, int]:
        """How many tasks, decision records and UCXL versions there are."""
        counted = ("tasks", "decisions", "versions")
        rows = self._query(f"SELECT {', '.join(f'(SELECT count(*) FROM {name})' for name in counted)}")
        return dict(zip(counted, rows[0] if rows else (0, 0, 0), strict=True))

    def ever_listed(self) -> int:
        """How many members the mesh ever had; 0 while this agent is in none."""
        rows = self._query("SELECT (SELECT count(*) FROM members) + (SELECT count(*) FROM former_members)")
        return int(rows[0][0]) if rows else 0

    def decisions(
        self, *, limit: int = 50, cursor: str | None = None, **wanted: Unpack[DecisionFilter]
    ) -> Page[DecisionRow]:
        """Decision records, newest first. A bad cursor raises ValueError."""
        where, values = self._decision_conditions(wanted)
        rows, after = self._page(_DECISION, "d.idx", where, values, limit, cursor)
        return Page([DecisionRow(*row) for row in rows], after)

    def decisions_among(
        self, hashes: Sequence[str], **wanted: Unpack[DecisionFilter]
    ) -> Iterator[DecisionRow]:
        """Those of the decision records with these hashes that are wanted, in the order of the hashes."""
        where, values = self._decision_conditions(wanted)
        where.append("d.hash IN (SELECT value FROM json_each(?))")
        values.append(orjson.dumps(hashes).decode())
        rows = {row[0]: row for row in self._query(f"{_DECISION} WHERE {' AND '.join(where)}", *values)}
        return (DecisionRow(*rows[hash]) for hash in hashes if hash in rows)

    def _decision_conditions(self, wanted: DecisionFilter) -> tuple[list[str], list[Any]]:
        where, values = ["1"], list[Any]()
        if (task_id := wanted.get("task_id")) is not None:
            where.append("d.task_id IS NOT NULL AND d.task_id = ?")
            values.append(task_id)
        if (agent := wanted.get("agent")) is not None:
            where.append("d.author = ?")
            values.append(self._peer_of(agent))
        if (project := wanted.get("project")) is not None:
            where.append(f"{PROJECT_OF_ADDRESS.replace('address', 'd.address')} = ?")
            values.append(project)
        if (kind := wanted.get("kind")) is not None:
            where.append("d.kind = ?")
            values.append(kind)
        if (since_ms := wanted.get("since_ms")) is not None:
            # What was brought along from another mesh is older than its place in the list.
            where.append("d.at_ms >= ? AND d.idx >= (SELECT min(idx) FROM decisions WHERE at_ms >= ?)")
            values += [since_ms, since_ms]
        return where, values

    def decisions_after(self, index: int, limit: int) -> list[DecisionRow]:
        """Decision records listed after the entry at `index`, oldest first."""
        rows = self._query(f"{_DECISION} WHERE d.idx > ? ORDER BY d.idx LIMIT {int(limit)}", index)
        return [DecisionRow(*row) for row in rows]

    def decision_at(self, address: str) -> DecisionRow | None:
        """The newest decision record at an address."""
        rows = self._query(_DECISION + " WHERE d.address = ? ORDER BY d.idx DESC LIMIT 1", address)
        return DecisionRow(*rows[0]) if rows else None

    def ballot(self, hash: str) -> BallotRow | None:
        """The newest vote on a decision, with what was cast in it."""
        rows = self._query(
            "SELECT hash, round, state, quorum, json_array_length(voters), approve, reject, abstain,"
            " opened_at, closes_at, ended_at, concluded FROM ballots WHERE hash = ?",
            hash,
        )
        if not rows:
            return None
        votes = self._query(
            f"SELECT v.peer, {_agent_id_of('v.peer')}, v.choice, v.reason, v.by, v.at_ms FROM votes v"
            " WHERE v.hash = ? AND v.round = ? ORDER BY v.at_ms, v.peer",
            hash,
            rows[0][1],
        )
        return BallotRow(*(*rows[0], tuple(VoteRow(*vote) for vote in votes)))

    def decision(self, hash: str) -> DecisionRow | None:
        """The decision record with that hash."""
        rows = self._query(_DECISION + " WHERE d.hash = ?", hash)
        return DecisionRow(*rows[0]) if rows else None

    def outcome(self, entry_id: str) -> tuple[bool, str] | None:
        """What came of an entry, if it was applied lately: whether it took effect, and the reason if not."""
        rows = self._query("SELECT accepted, reason FROM known WHERE id = ?", entry_id)
        return (bool(rows[0][0]), rows[0][1]) if rows else None

    def _page(
        self, select: str, order: str, where: list[str], values: list[Any], limit: int, cursor: str | None
    ) -> tuple[list[tuple[Any, ...]], str | None]:
        if cursor is not None:
            where.append(f"{order} < ?")
            values.append(int(cursor))
        count = max(1, min(limit, PAGE_MAX))
        sql = f"{select} WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT {count + 1}"
        rows = self._query(sql, *values)
        place = -1 if select is _LISTED_TASK else -2
        return rows[:count], str(rows[count - 1][place]) if len(rows) > count else None

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = self._connection
        if connection is None:
            if not self._path.exists():
                return []
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            # The writer creates all its tables in one transaction: there are all or none.
            if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]:
                connection.close()
                return []
            self._connection = connection
        return connection.execute(sql, values).fetchall()


def _seconds(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else round(max(0, end - start) / 1000, 3)


def _task(row: tuple[Any, ...]) -> TaskRow:
    (task_id, task, state, reason, attempt, agent, agent_id, submitter, submitted_by, vouched_by, holders,
     created_at, claimed_at, started_at, finished_at, pulling_s, result, decision, lost,
     removed_at, removed_by, _) = row  # fmt: skip
    return TaskRow(
        task_id=task_id,
        task=shown(orjson.loads(task)),
        state=state,
        reason=reason,
        attempt=attempt,
        agent=agent,
        agent_id=agent_id,
        submitter=submitter,
        submitted_by=submitted_by,
        vouched_by=vouched_by,
        holders=tuple(orjson.loads(holders)),
        created_at=created_at,
        claimed_at=claimed_at,
        started_at=started_at,
        finished_at=finished_at,
        waiting_s=_seconds(created_at, claimed_at if claimed_at is not None else finished_at),
        pulling_s=pulling_s,
        running_s=_seconds(started_at, finished_at),
        # A task that was offered again still names its last attempt, whose result is not the task's.
        result=orjson.loads(result) if result is not None and state in FINISHED_STATES else None,
        decision=decision,
        lost=lost,
        removed_at=removed_at,
        removed_by=removed_by,
    )


def _attempt(row: tuple[Any, ...]) -> AttemptRow:
    values = list(row)
    values[-1] = None if row[-1] is None else orjson.loads(row[-1])
    return AttemptRow(*values)


def _member(row: tuple[Any, ...]) -> MemberRow:
    (peer, raft_id, agent_id, role, expertise, specialization, max_tasks, languages, images, accepting,
     reason, version, voter, present, active, joined_at, table_version, models,
     model_reason) = row  # fmt: skip
    return MemberRow(
        peer, raft_id, agent_id, role, tuple(orjson.loads(expertise)), specialization, max_tasks,
        tuple(orjson.loads(languages)), tuple(orjson.loads(images)), bool(accepting), reason, version,
        bool(voter), bool(present), active, joined_at, table_version, tuple(orjson.loads(models)),
        model_reason,
    )  # fmt: skip


def shown(task: dict[str, Any]) -> dict[str, Any]:
    """A task of the table with its times as HTTP writes them."""
    times = {name: rfc3339(task[name]) for name in _TIMES if isinstance(task.get(name), int)}
    return {**task, **times}

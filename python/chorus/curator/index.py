"""Searches in the curator's index, by any process of the agent. The writer is `chorus.curator.writer`.

No query's cost grows with the number of documents: of each word, name or project only the newest matches are
looked at. Until there is a file, and while it is made anew, everything is empty.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.curator import words
from chorus.curator.documents import CONTENT
from chorus.curator.form import CONTENT_WORDS, DECISION_WORDS, FORM_VERSION

# As many newest matches of one word, file or project are weighed.
MATCHES_MAX = 100
# As many matches of a search are looked at before the best are chosen.
SEARCH_MATCHES_MAX = 1_000
SEARCH_LIMIT_MAX = 1_000
# As many of the best are read in full.
CANDIDATES_MAX = 32
SNIPPET_TOKENS = 24
# A title is what somebody would call the task; a word of it says as much as some of its description.
TITLE_WEIGHT = 3
_BUSY_MS = 2_000
# Of a large file what a query needs is read where it lies, in the pages that the system keeps anyway.
MAPPED_MAX_BYTES = 256 * 1024 * 1024

_MARK = "\x01"
# As the index on projects has it.
_DECIDED = "kind IN ('task_result', 'hmmm_outcome')"
_HIT = "d.address, d.version, d.hash, d.kind, d.at_ms"


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that was found. `version` is its number at its address, where it has one."""

    address: str
    version: int | None
    hash: str
    score: float
    snippet: str
    kind: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Matter:
    """What a task is about, as far as it can be looked for: the words of its title, and its other words."""

    project: str = ""
    title: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An earlier decision and what it has in common with a task. `share` is of the words' weight, 0 to 1."""

    id: int
    hash: str
    address: str
    kind: str
    task: str
    project: str
    title: str
    outcome: str
    share: float
    same_project: bool
    words: tuple[str, ...]
    files: tuple[str, ...]
    superseded: bool


class IndexReader:
    """Reads the index at `path`. May be shared by threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def close(self) -> None:
        """Closes the file; the next question opens it again."""
        with self._lock:
            self._forget()

    def search(
        self, text: str, *, limit: int = 20, pattern: str | None = None, kinds: Sequence[str] = ()
    ) -> list[Hit]:
        """Texts with all words of `text`, the best first; a pattern is a UCXL address that may hold `any`.

        Whatever `text` holds is words, no syntax. Raises UcxlError for a pattern that is no address.
        """
        query = words.all_of(text)
        fits, where, values = _pattern(pattern)
        if query is None:
            return []
        if kinds:
            where += f" AND d.kind IN ({', '.join('?' * len(kinds))})"
            values += kinds
        hits = []
        for table in _tables(kinds):
            # A mark before each place that matched: how often, in the title and in the body.
            rows = self._query(
                f"SELECT {_HIT}, highlight({table}, 0, '{_MARK}', ''), highlight({table}, 1, '{_MARK}', ''),"
                f" snippet({table}, -1, '', '', '…', {SNIPPET_TOKENS})"
                f" FROM {table} JOIN docs d ON d.id = {table}.rowid WHERE {table} MATCH ?{where}"
                f" ORDER BY {table}.rowid DESC LIMIT {SEARCH_MATCHES_MAX}",
                query,
                *values,
            )
            for address, version, hash, kind, at_ms, title, body, snippet in rows:
                if fits is None or fits(address):
                    score = _score(title, body)
                    text = words.joined(snippet.replace(_MARK, ""))
                    hits.append(Hit(address, version, hash, score, text, kind, at_ms))
        hits.sort(key=lambda hit: (-hit.score, -hit.at_ms, hit.address))
        return hits[: max(1, min(limit, SEARCH_LIMIT_MAX))]

    def matching(self, matter: Matter) -> list[Candidate]:
        """Earlier decisions that have something in common with a task, the closest first.

        Depends on the documents alone: agents with the same ones give the same answer.
        """
        with self._lock:
            try:
                return self._matching(matter)
            except sqlite3.DatabaseError:
                self._forget()
                return []

    def _matching(self, matter: Matter) -> list[Candidate]:
        newest = self._rows("SELECT max(id) FROM docs")
        if not newest or newest[0][0] is None:
            return []
        top = int(newest[0][0])
        word_of: dict[int, list[str]] = {}
        file_of: dict[int, list[str]] = {}
        score: dict[int, float] = {}
        share: dict[int, float] = {}
        weights: list[float] = []
        absent = 0
        for word in (*matter.title, *matter.words):
            found = self._ids(
                f"SELECT rowid FROM {DECISION_WORDS} WHERE {DECISION_WORDS} MATCH ?"
                " ORDER BY rowid DESC LIMIT ?",
                words.phrase(word),
            )
            times = TITLE_WEIGHT if word in matter.title else 1
            if not found:
                absent += times
                continue
            weight = _weight(found, top)
            weights += [weight] * times
            for id in found:
                word_of.setdefault(id, []).append(word)
                share[id] = share.get(id, 0.0) + weight * times
        # What no decision has tells none from another: it counts like the others on average.
        total = sum(weights) * (1 + absent / max(1, len(weights)))
        for id, value in share.items():
            share[id] = value / total
            score[id] = share[id]
        for name in matter.files:
            for id in self._ids("SELECT id FROM files WHERE name = ? ORDER BY id DESC LIMIT ?", name):
                file_of.setdefault(id, []).append(name)
                # The first file says most; a tree in common is not many times one file in common.
                score[id] = score.get(id, 0.0) + 0.5 / len(file_of[id]) ** 2
        ours = set(
            self._ids(
                f"SELECT id FROM docs WHERE project = ? AND {_DECIDED} ORDER BY id DESC LIMIT ?",
                matter.project,
            )
            if matter.project
            else ()
        )
        for id in ours:
            score[id] = score.get(id, 0.0) + 0.25
        best = sorted(score, key=lambda place: (-round(score[place], 6), -place))[:CANDIDATES_MAX]
        made = []
        for id in best:
            rows = self._rows(
                "SELECT hash, address, kind, task, project, title, outcome, author FROM docs WHERE id = ?"
                " AND kind <> ?",
                id, CONTENT,
            )  # fmt: skip
            if rows:
                hash, address, kind, task, project, title, outcome, author = rows[0]
                made.append(
                    Candidate(
                        id,
                        hash,
                        address,
                        kind,
                        task,
                        project,
                        words.joined(title),
                        outcome,
                        round(share.get(id, 0.0), 6),
                        id in ours,
                        tuple(word_of.get(id, ())),
                        tuple(file_of.get(id, ())),
                        self._superseded(address, id, task, author),
                    )
                )
        return made

    def _superseded(self, address: str, id: int, task: str, author: str) -> bool:
        # Only who decided, or who decides on the same task later, takes a decision back.
        return bool(
            self._rows(
                "SELECT 1 FROM supersedes WHERE address = ? AND id > ? AND (task = ? OR author = ?) LIMIT 1",
                address,
                id,
                task,
                author,
            )
        )

    def _ids(self, sql: str, *values: Any) -> list[int]:
        return [row[0] for row in self._rows(sql, *values, MATCHES_MAX)]

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._rows(sql, *values)
            except sqlite3.DatabaseError:
                # Damaged, or made anew under our hands: the writer sees to it.
                self._forget()
                return []

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        db = self._open()
        return db.execute(sql, values).fetchall() if db is not None else []

    def _open(self) -> sqlite3.Connection | None:
        try:
            inode = self._path.stat().st_ino
        except OSError:
            inode = 0
        if self._db is not None and inode == self._inode:
            return self._db
        self._forget()
        if not inode:
            return None
        db = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        db.execute(f"PRAGMA mmap_size = {MAPPED_MAX_BYTES}")
        # The writer makes all tables in one transaction, with the number of their form.
        if db.execute("PRAGMA user_version").fetchone()[0] != FORM_VERSION:
            db.close()
            return None
        self._db, self._inode = db, inode
        return db

    def _forget(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _tables(kinds: Sequence[str]) -> list[str]:
    tables = [DECISION_WORDS] if not kinds or set(kinds) != {CONTENT} else []
    return tables + ([CONTENT_WORDS] if not kinds or CONTENT in kinds else [])


def _weight(found: Sequence[int], top: int) -> float:
    """How telling a word is: the rarer among the newest documents, the more."""
    span = top if len(found) < MATCHES_MAX else top - found[-1] + 1
    return math.log2(1.0 + span / len(found))


def _score(title: str, body: str) -> float:
    in_title, in_body = title.count(_MARK), body.count(_MARK)
    # More of a word says more, but never many times more; a long text has more of everything.
    return round(2.0 * math.log2(1 + in_title) + math.log2(1 + in_body) / (1 + len(body) / 20_000), 3)


def _pattern(pattern: str | None) -> tuple[Any, str, list[Any]]:
    if pattern is None:
        return None, "", []
    from chorus.core import Ucxl

    wanted = Ucxl.parse(pattern)
    where, values = "", list[Any]()
    for column, part in (
        ("agent", wanted.agent),
        ("role", wanted.role),
        ("project", wanted.project),
        ("task", wanted.task),
    ):
        if part != "any":
            where += f" AND d.{column} = ?"
            values.append(part)
    return (lambda address: _matches(wanted, address)), where, values


def _matches(wanted: Any, address: str) -> bool:
    from chorus.core import Ucxl, UcxlError

    try:
        return bool(wanted.matches(Ucxl.parse(address)))
    except UcxlError:
        return False

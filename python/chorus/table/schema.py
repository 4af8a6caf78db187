"""The SQLite form of the table: its columns, indexes and how a record becomes a row and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import orjson

from chorus.table.records import RECORDS, VALUES, Record

# The form of the file. One of an older form is made anew from the log, one of a newer form refused by name.
SCHEMA_VERSION = 5

# The project in a decision's address, `ucxl://agent:role@project:task/…`, as index and query both write it.
_FROM_PROJECT = "substr(address, instr(address, '@') + 1)"
PROJECT_OF_ADDRESS = f"substr({_FROM_PROJECT}, 1, instr({_FROM_PROJECT}, ':') - 1)"

# The blobs that a task names. What SQLite does not read as JSON (deep nesting) must not make an entry fail.
SOURCE_BLOB = "CASE WHEN json_valid(task) THEN json_extract(task, '$.source.sha256') END"
STDIN_BLOB = "CASE WHEN json_valid(task) THEN json_extract(task, '$.stdin_sha256') END"

# The blob that a result's list of artifacts lies in.
ARTIFACTS_BLOB = "CASE WHEN json_valid(result) THEN json_extract(result, '$.artifacts_blob.sha256') END"

# What is finished is never scanned: every list walks an index that begins with what it filters by.
INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS tasks_idx ON tasks(idx)",
    "CREATE INDEX IF NOT EXISTS tasks_open ON tasks(idx) WHERE finished_at IS NULL",
    "CREATE INDEX IF NOT EXISTS tasks_state ON tasks(state, idx)",
    "CREATE INDEX IF NOT EXISTS tasks_submitted_by ON tasks(submitted_by, idx)",
    "CREATE INDEX IF NOT EXISTS tasks_project ON tasks(project, idx) WHERE project <> ''",
    "CREATE INDEX IF NOT EXISTS tasks_agent ON tasks(agent, idx) WHERE agent IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS attempts_open ON attempts(agent) WHERE finished_at IS NULL",
    "CREATE INDEX IF NOT EXISTS known_idx ON known(idx)",
    "CREATE INDEX IF NOT EXISTS cancels_at ON cancels(at_ms)",
    "CREATE UNIQUE INDEX IF NOT EXISTS decisions_idx ON decisions(idx)",
    "CREATE INDEX IF NOT EXISTS decisions_task ON decisions(task_id, idx) WHERE task_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS decisions_author ON decisions(author, idx)",
    "CREATE INDEX IF NOT EXISTS decisions_kind ON decisions(kind, idx)",
    "CREATE INDEX IF NOT EXISTS decisions_at ON decisions(at_ms, idx)",
    "CREATE INDEX IF NOT EXISTS decisions_address ON decisions(address, idx)",
    f"CREATE INDEX IF NOT EXISTS decisions_project ON decisions({PROJECT_OF_ADDRESS}, idx)",
    "CREATE INDEX IF NOT EXISTS ballots_unrecorded ON ballots(hash) WHERE concluded IS NULL",
    # Lists of addresses go by path, and within one by age; the first column is what the pattern names.
    "CREATE UNIQUE INDEX IF NOT EXISTS addresses_idx ON addresses(idx)",
    "CREATE INDEX IF NOT EXISTS addresses_task ON addresses(task, path, idx)",
    "CREATE INDEX IF NOT EXISTS addresses_project ON addresses(project, path, idx)",
    "CREATE INDEX IF NOT EXISTS addresses_agent ON addresses(agent, path, idx)",
    "CREATE INDEX IF NOT EXISTS addresses_role ON addresses(role, path, idx)",
    "CREATE INDEX IF NOT EXISTS addresses_path ON addresses(path, idx)",
    "CREATE UNIQUE INDEX IF NOT EXISTS versions_idx ON versions(idx)",
    # Which tasks name a blob; most name none.
    f"CREATE INDEX IF NOT EXISTS bodies_source ON bodies({SOURCE_BLOB}) WHERE {SOURCE_BLOB} <> ''",
    f"CREATE INDEX IF NOT EXISTS bodies_stdin ON bodies({STDIN_BLOB}) WHERE {STDIN_BLOB} <> ''",
    "CREATE INDEX IF NOT EXISTS attempts_artifacts_blob"
    f" ON attempts({ARTIFACTS_BLOB}) WHERE {ARTIFACTS_BLOB} <> ''",
)

# WITHOUT ROWID pays for short rows found by their key; a body can be large and keeps its rowid, and the many
# indexes of addresses are smaller with a rowid than with a copy of the address.
_WITH_ROWID = frozenset({"bodies", "tasks", "addresses"})


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _plain(value: Any) -> Any:
    return value


def _int(value: Any) -> Any:
    return int(value)


def _bool(value: Any) -> Any:
    return bool(value)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(orjson.loads(value))


def _object(value: Any) -> Any:
    return None if value is None else orjson.loads(value)


class Form:
    """How one kind of record is kept: its statements and its conversions."""

    def __init__(self, kind: type[Record]) -> None:
        self.kind = kind
        self.names = tuple(item.name for item in fields(kind))
        kinds = [str(item.type) for item in fields(kind)]
        self._values = VALUES[kind]
        # Only the columns that SQLite does not take as they are.
        self._encode: list[tuple[int, Callable[[Any], Any]]] = []
        self._decode: list[Callable[[Any], Any]] = []
        columns: list[str] = []
        for name, text in zip(self.names, kinds, strict=True):
            encode, decode, sql = _plain, _plain, "TEXT"
            if text.startswith("tuple"):
                encode, decode = _json, _tuple
            elif text.startswith("dict"):
                encode, decode = _json, _object
            elif text.startswith("bool"):
                encode, decode, sql = _int, _bool, "INTEGER"
            elif text.startswith("int"):
                sql = "INTEGER"
            elif text.startswith("float"):
                sql = "REAL"
            if encode is not _plain:
                self._encode.append((len(columns), encode))
            self._decode.append(decode)
            columns.append(f"{name} {sql}" + ("" if "None" in text else " NOT NULL"))
        key = ", ".join(kind.KEY)
        tail = "" if kind.TABLE in _WITH_ROWID else " WITHOUT ROWID"
        self.create = (
            f"CREATE TABLE IF NOT EXISTS {kind.TABLE} ({', '.join(columns)}, PRIMARY KEY ({key})){tail}"
        )
        marks = ", ".join("?" * len(self.names))
        rest = [name for name in self.names if name not in kind.KEY]
        # An upsert, not a REPLACE: indexes whose columns did not change stay untouched.
        self.upsert = (
            f"INSERT INTO {kind.TABLE} ({', '.join(self.names)}) VALUES ({marks})"
            f" ON CONFLICT({key}) DO UPDATE SET " + ", ".join(f"{name}=excluded.{name}" for name in rest)
        )
        self.select = f"SELECT {', '.join(self.names)} FROM {kind.TABLE} WHERE " + " AND ".join(
            f"{name}=?" for name in kind.KEY
        )

    def row(self, record: Record) -> tuple[Any, ...]:
        """The record as SQLite takes it."""
        values = list(self._values(record))
        for place, encode in self._encode:
            values[place] = encode(values[place])
        return tuple(values)

    def record(self, row: tuple[Any, ...]) -> Record:
        """The record of a row read with `select`."""
        return self.kind(*[decode(value) for decode, value in zip(self._decode, row, strict=True)])


FORMS: dict[type[Record], Form] = {kind: Form(kind) for kind in RECORDS}

"""A log recorded at each release replays to the table it made then: what an entry means does not change.

A recording is never edited: a later release adds one of its own. It is entries, one a line, and after them
the hash of what the table holds.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from chorus.table.entries import Entry
from chorus.table.entry_types import OF_THE_CORE, PROPOSABLE
from chorus.table.reader import TableReader
from chorus.table.records import RECORDS
from chorus.table.store import TableStore
from chorus.table.view import view

VECTORS = Path(__file__).parents[2] / "vectors"
RELEASES = ["0.5", "0.6", "0.7"]
# Fields of records that came after a release, and what they hold in a table which that release could make.
_SINCE_0_6: dict[tuple[str, str], Any] = {("members", "models"): (), ("members", "model_reason"): ""}
ADDED_SINCE: dict[str, dict[tuple[str, str], Any]] = {
    "0.5": {("mesh", "recovers"): (), **_SINCE_0_6},
    "0.6": _SINCE_0_6,
}


def recorded(release: str = RELEASES[-1]) -> list[Entry]:
    """The entries of a recording."""
    lines = (VECTORS / f"table_log_{release}.jsonl").read_bytes().splitlines()
    return [Entry(**orjson.loads(line)) for line in lines[:-1]]


def recorded_hash(release: str) -> str:
    """The hash of the table that a recording made."""
    lines = (VECTORS / f"table_log_{release}.jsonl").read_bytes().splitlines()
    return str(orjson.loads(lines[-1])["sha256"])


def content_hash(store: TableStore, release: str) -> str:
    """SHA-256 over every record of the table, in the order of kinds and keys, as the release had them."""
    digest = hashlib.sha256()
    for kind in RECORDS:
        for record in store.records(kind):
            values = asdict(record)
            for (table, name), empty in ADDED_SINCE.get(release, {}).items():
                if table == kind.TABLE:
                    assert values.pop(name) == empty
            digest.update(json.dumps([kind.TABLE, values], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


@pytest.mark.parametrize("release", RELEASES)
def test_a_recorded_log_makes_the_same_table(release: str, tmp_path: Path) -> None:
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(recorded(release))
    assert content_hash(store, release) == recorded_hash(release)
    reader = TableReader(tmp_path / "table.sqlite")
    for row in reader.tasks(limit=100).items:
        orjson.dumps(view(row, reader.attempts(row.task_id)))
    reader.close()
    store.close()


def test_the_newest_recording_has_every_type() -> None:
    assert {entry.type for entry in recorded()} - {"", "invalid", "news"} == PROPOSABLE | OF_THE_CORE

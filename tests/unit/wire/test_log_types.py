"""Every entry that is written has a type of the list, and every type of the list has its line in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import chorus
from chorus.wire.log import LOG_TYPES

ROOT = Path(chorus.__file__).parent
DOCS = Path(__file__).parents[3] / "docs" / "log.md"
WRITTEN = re.compile(r"(?:log_append|_log_entry|notes\.write|_write|_write_surely)\(\s*\"([a-z_]+)\"")


def test_the_docs_list_the_types() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(LOG_TYPES)


def test_what_is_written_is_listed_and_what_is_listed_is_written() -> None:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if path.name != "log.py"]
    written = {type for source in sources for type in WRITTEN.findall(source)}
    assert written <= set(LOG_TYPES)
    assert all(any(f'"{type}"' in source for source in sources) for type in LOG_TYPES)

"""What the reader says of UCXL addresses: latest, history, patterns by pages, news; and what that costs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from table_mesh import A, B, C, Log

from chorus.table import versions as module
from chorus.table.reader import TableReader
from chorus.table.rows import VersionRow
from chorus.table.store import TableStore
from chorus.table.versions import Pattern

# agent, role, project, task, path: written in this order, by a.
PLACES = (
    ("b", "developer", "p", "t1", "src/b.py"),
    ("b", "developer", "p", "t1", "src/a.py"),
    ("c", "observer", "p", "t1", "src/a.py"),
    ("c", "observer", "q", "t2", "README"),
    ("b", "agent", "q", "t2", "srcs"),
    ("b", "agent", "q", "t3", ""),
)


def address(place: tuple[str, ...]) -> str:
    return "ucxl://{}:{}@{}:{}/*^/{}".format(*place)


@pytest.fixture
def log() -> Log:
    log = Log()
    for n, place in enumerate(PLACES):
        log.say(
            A, "version", id=f"first-{n}", address=address(place), hash=f"{n}" * 64, content_type="text/plain"
        )
    return log


@pytest.fixture
def reader(log: Log, tmp_path: Path) -> Iterator[TableReader]:
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(log.entries)
    reader = TableReader(tmp_path / "table.sqlite")
    yield reader
    reader.close()
    store.close()


def apply(log: Log, reader: TableReader) -> None:
    store = TableStore(reader._path)
    store.apply_batch(log.entries)
    store.close()


def paged(reader: TableReader, pattern: Pattern, limit: int, **more: object) -> list[VersionRow]:
    items: list[VersionRow] = []
    cursor = None
    for _ in range(50):
        page = reader.ucxl.query(pattern, limit=limit, cursor=cursor, **more)  # type: ignore[arg-type]
        assert len(page.items) <= limit
        items += page.items
        cursor = page.next
        if cursor is None:
            return items
    raise AssertionError("the pages do not end")


def test_before_there_is_a_table_nothing_is_there(tmp_path: Path) -> None:
    reader = TableReader(tmp_path / "table.sqlite")
    assert reader.ucxl.head("x") is None
    assert reader.ucxl.latest("x") is None
    assert reader.ucxl.query(Pattern()).items == []
    assert reader.ucxl.after(0) == []
    assert reader.ucxl.counts() == (0, 0)


def test_one_address(log: Log, reader: TableReader) -> None:
    here = address(PLACES[0])
    for n in range(4):
        log.say(B, "version", address=here, hash="f" * 64, tombstone=n == 3)
    apply(log, reader)
    head, latest = reader.ucxl.head(here), reader.ucxl.latest(here)
    assert head is not None
    assert latest is not None
    assert (head.latest, head.deleted) == (5, True)
    assert (latest.version, latest.deleted, latest.author) == (5, True, B)
    first = reader.ucxl.version(here, 1)
    assert first is not None
    assert (first.hash[0], first.author, first.agent_id, first.latest) == ("0", A, "a", 5)
    assert reader.ucxl.version(here, 6) is None
    page = reader.ucxl.history(here, limit=2)
    assert [row.version for row in page.items] == [5, 4]
    page = reader.ucxl.history(here, limit=2, cursor=page.next)
    assert [row.version for row in page.items] == [3, 2]
    page = reader.ucxl.history(here, limit=2, cursor=page.next)
    assert ([row.version for row in page.items], page.next) == ([1], None)
    assert reader.ucxl.counts() == (6, 10)


@pytest.mark.parametrize("limit", [1, 2, 500])
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (Pattern(), [5, 3, 1, 2, 0, 4]),
        (Pattern(agent="b"), [5, 1, 0, 4]),
        (Pattern(role="observer"), [3, 2]),
        (Pattern(project="p"), [1, 2, 0]),
        (Pattern(task="t1", agent="b"), [1, 0]),
        (Pattern(project="q", agent="c", role="agent"), []),
        (Pattern(path="src/"), [1, 2, 0]),
        (Pattern(path="src/", project="q"), []),
        (Pattern(path="src/a.py", below=False), [1, 2]),
        (Pattern(path="src", below=False), []),
        (Pattern(path="", below=False), [5]),
        (Pattern(agent="nobody"), []),
        (Pattern("b", "developer", "p", "t1", "src/a.py", False), [1]),
    ],
)
def test_patterns(reader: TableReader, pattern: Pattern, expected: list[int], limit: int) -> None:
    found = paged(reader, pattern, limit)
    assert [row.address for row in found] == [address(PLACES[n]) for n in expected]


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
def test_every_version_of_a_pattern(log: Log, reader: TableReader, limit: int) -> None:
    log.say(B, "version", address=address(PLACES[1]), hash="f" * 64)
    log.say(B, "version", address=address(PLACES[1]), tombstone=True)
    apply(log, reader)
    pattern = Pattern(path="src/a.py", below=False)
    found = paged(reader, pattern, limit, every=True, deleted=True)
    assert [(row.address, row.version) for row in found] == [
        (address(PLACES[1]), 3), (address(PLACES[1]), 2), (address(PLACES[1]), 1), (address(PLACES[2]), 1)
    ]  # fmt: skip
    assert [row.version for row in paged(reader, pattern, limit)] == [1]
    second = paged(reader, pattern, limit, number=lambda latest: 2 if latest > 1 else None, deleted=True)
    assert [(row.address, row.version) for row in second] == [(address(PLACES[1]), 2)]


def test_a_page_looks_at_a_bounded_number(reader: TableReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCAN_MAX_ADDRESSES", 1)
    page = reader.ucxl.query(Pattern(project="q", agent="c"))
    assert page.items == []
    assert page.next is not None
    found = paged(reader, Pattern(project="q", agent="c"), 10)
    assert [row.address for row in found] == [address(PLACES[3])]


@pytest.mark.parametrize("cursor", ["x", "1", "1.", ".1", "-1.0", "99.0", "5.x", "5.1.1", "²." + "1"])
def test_bad_cursors_are_told(reader: TableReader, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        reader.ucxl.query(Pattern(), cursor=cursor)


def test_news_and_what_an_entry_wrote(log: Log, reader: TableReader) -> None:
    news = reader.ucxl.after(log.entries[5].index, limit=2)
    assert [row.address for row in news] == [address(PLACES[2]), address(PLACES[3])]
    written = reader.ucxl.written_by("first-2")
    assert written is not None
    assert written.address == address(PLACES[2])
    assert reader.ucxl.written_by("nobody") is None
    log.say(C, "version", id="refused", address=address(PLACES[0]), hash="0" * 64, create=True)
    apply(log, reader)
    assert reader.ucxl.written_by("refused") is None


def test_queries_walk_indexes(reader: TableReader) -> None:
    """No plan looks at all addresses or sorts, whatever the pattern names."""
    assert reader.ucxl.head("x") is None  # opens the file
    seen: list[str] = []
    connection = sqlite3.connect(reader._path)

    def explain(sql: str, *values: object) -> list[tuple[object, ...]]:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
        seen.append(" ".join(row[3] for row in plan))
        return connection.execute(sql, values).fetchall()

    ucxl = module.Versions(explain)
    for pattern in (
        Pattern(), Pattern(agent="b"), Pattern(role="agent"), Pattern(project="p", role="agent"),
        Pattern(task="t1"), Pattern(path="src/"), Pattern(project="p", path="src/"),
        Pattern(path="README", below=False),
    ):  # fmt: skip
        page = ucxl.query(pattern, limit=1)
        ucxl.query(pattern, limit=1, cursor=page.next)
    ucxl.history("x", cursor="5")
    ucxl.after(3)
    ucxl.latest("x")
    ucxl.written_by("x")
    assert seen
    for plan in seen:
        assert (
            "SCAN" not in plan
            or "USING COVERING INDEX addresses_path" in plan
            or "INDEX addresses_path" in plan
        ), plan
        assert "TEMP B-TREE" not in plan, plan
    connection.close()

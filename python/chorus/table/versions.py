"""Versions at UCXL addresses as other processes see them: the latest, one, all of an address, those of a
pattern.

Nothing here grows with the table: a pattern walks the index of its most telling part, and one page looks at a
bounded number of addresses, however few of them fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chorus.table.rows import Page, VersionRow

# What one page of a query looks at; it may come back with less than it could hold, and a cursor.
SCAN_MAX_ADDRESSES = 2_000
PAGE_MAX = 500

# The parts of a pattern that have an index, the one that usually names the fewest addresses first.
_INDEXED = ("task", "project", "agent", "role")
_VERSION = """
SELECT v.address, v.version, a.latest, v.hash, v.stored, v.kind, v.size, v.content_type, v.author, v.agent_id,
  v.role, v.deleted, v.idx, v.at_ms
FROM versions v JOIN addresses a ON a.address = v.address
"""
# After every character that a path may hold.
_AFTER = "\x7f"

Query = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a query asks for: a part that is None fits all; `path` is a beginning when `below`."""

    agent: str | None = None
    role: str | None = None
    project: str | None = None
    task: str | None = None
    path: str = ""
    below: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """An address and where it stands."""

    address: str
    latest: int
    deleted: bool


class Versions:
    """Reads through the table reader's connection."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def head(self, address: str) -> Head | None:
        """Where an address stands; None when nothing was ever written there."""
        rows = self._query("SELECT address, latest, deleted FROM addresses WHERE address = ?", address)
        return Head(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None

    def version(self, address: str, number: int) -> VersionRow | None:
        """One version, tombstones too."""
        rows = self._query(f"{_VERSION} WHERE v.address = ? AND v.version = ?", address, number)
        return _row(rows[0]) if rows else None

    def latest(self, address: str) -> VersionRow | None:
        """The latest version, which may be a tombstone."""
        rows = self._query(f"{_VERSION} WHERE v.address = ? AND v.version = a.latest", address)
        return _row(rows[0]) if rows else None

    def history(self, address: str, *, limit: int = 50, cursor: str | None = None) -> Page[VersionRow]:
        """All versions of an address, newest first. A bad cursor raises ValueError."""
        where, values = "v.address = ?", list[Any]([address])
        if cursor is not None:
            where += " AND v.version < ?"
            values.append(int(cursor))
        count = max(1, min(limit, PAGE_MAX))
        rows = self._query(f"{_VERSION} WHERE {where} ORDER BY v.version DESC LIMIT {count + 1}", *values)
        items = [_row(row) for row in rows[:count]]
        return Page(items, str(items[-1].version) if len(rows) > count else None)

    def written_by(self, entry_id: str) -> VersionRow | None:
        """The version that the entry with that id made, if it was applied lately."""
        rows = self._query(
            f"{_VERSION} JOIN known k ON k.idx = v.idx WHERE k.id = ? AND k.accepted = 1", entry_id
        )
        return _row(rows[0]) if rows else None

    def after(self, index: int, *, limit: int = PAGE_MAX) -> list[VersionRow]:
        """The versions of all addresses made by entries after `index`, oldest first."""
        rows = self._query(f"{_VERSION} WHERE v.idx > ? ORDER BY v.idx LIMIT ?", index, limit)
        return [_row(row) for row in rows]

    def counts(self) -> tuple[int, int]:
        """How many addresses were written at, and how many versions there are."""
        rows = self._query(
            "SELECT name, value FROM counters WHERE name IN ('ucxl:addresses', 'ucxl:versions')"
        )
        found: dict[str, int] = dict(rows)
        return found.get("ucxl:addresses", 0), found.get("ucxl:versions", 0)

    def query(
        self,
        pattern: Pattern,
        *,
        number: Callable[[int], int | None] = lambda latest: latest,
        every: bool = False,
        deleted: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[VersionRow]:
        """Versions at the addresses that a pattern names, by path and then by the addresses' age.

        Of each address the one that `number` names when given the latest, or with `every` all, newest first;
        with `deleted` also where the latest is a tombstone. A page may hold less than `limit` and still have
        a `next`. A bad cursor raises ValueError.
        """
        count = max(1, min(limit, PAGE_MAX))
        after, below = _place(cursor)
        items: list[VersionRow] = []
        idx, seen, place = after, 0, ""
        for idx, address, latest, gone, fits in self._addresses(pattern, after, below > 0, count + 1):
            seen += 1
            if fits and (deleted or not gone):
                for version in self._chosen(address, latest, number, every, below if idx == after else None):
                    if len(items) == count:
                        return Page(items, place)
                    items.append(version)
                    place = f"{idx}.{version.version}"
        return Page(items, f"{idx}.0" if seen >= SCAN_MAX_ADDRESSES else None)

    def _chosen(
        self,
        address: str,
        latest: int,
        number: Callable[[int], int | None],
        every: bool,
        below: int | None,
    ) -> Iterator[VersionRow]:
        newest = latest if below is None else below - 1
        if every:
            numbers: Iterable[int] = range(newest, 0, -1)
        else:
            one = number(latest)
            numbers = [one] if one is not None and one <= newest else []
        for each in numbers:
            found = self.version(address, each)
            if found is not None:
                yield found

    def _addresses(
        self, pattern: Pattern, after: int | None, again: bool, first: int
    ) -> Iterator[tuple[int, str, int, int, int]]:
        """At most SCAN_MAX_ADDRESSES after a place, or with `again` from it on; read in growing pieces."""
        where, values = list[str](), list[Any]()
        driver = next((part for part in _INDEXED if getattr(pattern, part) is not None), None)
        if driver is not None:
            where.append(f"{driver} = ?")
            values.append(getattr(pattern, driver))
        if pattern.path and pattern.below:
            where.append("path >= ? AND path < ?")
            values += [pattern.path, pattern.path + _AFTER]
        elif not pattern.below:
            where.append("path = ?")
            values.append(pattern.path)
        fits = [part for part in _INDEXED if part != driver and getattr(pattern, part) is not None]
        flag = " AND ".join(f"{part} = ?" for part in fits) or "1"
        given = [getattr(pattern, part) for part in fits]
        path, idx, beyond = "", -1, ">"
        if after is not None:
            rows = self._query("SELECT path FROM addresses WHERE idx = ?", after)
            if not rows:
                raise ValueError("not a cursor of this list")
            path, idx, beyond = rows[0][0], after, ">=" if again else ">"
        seen, piece = 0, first
        while seen < SCAN_MAX_ADDRESSES:
            piece = min(piece, SCAN_MAX_ADDRESSES - seen)
            conditions = " AND ".join([*where, f"(path, idx) {beyond} (?, ?)"])
            rows = self._query(
                f"SELECT idx, address, latest, deleted, {flag}, path FROM addresses"
                f" INDEXED BY addresses_{driver or 'path'} WHERE {conditions}"
                f" ORDER BY path, idx LIMIT {piece}",
                *given, *values, path, idx,
            )  # fmt: skip
            for row in rows:
                yield row[:5]
            if len(rows) < piece:
                return
            idx, path, beyond = rows[-1][0], rows[-1][5], ">"
            seen, piece = seen + len(rows), piece * 2


def _place(cursor: str | None) -> tuple[int | None, int]:
    """A cursor is `<first entry of an address>.<version>`: next is an older version, or a later address."""
    if cursor is None:
        return None, 0
    idx, dot, version = cursor.partition(".")
    if not (dot and idx.isdecimal() and version.isdecimal() and cursor.isascii()):
        raise ValueError("not a cursor of this list")
    return int(idx), int(version)


def _row(row: tuple[Any, ...]) -> VersionRow:
    values = list(row)
    values[11] = bool(values[11])
    return VersionRow(*values)

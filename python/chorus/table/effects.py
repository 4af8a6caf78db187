"""What transitions see of the table and what they answer: a view to read, and a list of records to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from chorus.table.records import RECORDS, Record, key_of

R = TypeVar("R", bound=Record)
Key = tuple[Any, ...]


class TableView(Protocol):
    """The table as transitions read it: one record by its key."""

    def get(self, kind: type[R], *key: Any) -> R | None:
        """The record, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Drop:
    """A record that is to go."""

    kind: type[Record]
    key: Key


Effect = Record | Drop


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an entry: whether it took effect, the reason if not, and the records to write."""

    accepted: bool
    reason: str = ""
    effects: tuple[Effect, ...] = ()
    # The task or member concerned, for whoever follows the table.
    tasks: tuple[str, ...] = ()
    members: bool = False
    leader: bool = False
    # Whether a UCXL address has one version more.
    versions: bool = False
    # For an entry that had counted before: what came of it then.
    repeated: bool = False
    # The version that the entry raises the table to, when it is one that this release does not know: neither
    # it nor any entry after it can be applied.
    beyond: int | None = None


class Beyond(Exception):
    """The mesh raised the table's version to one that this release does not know. Applying stops."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the table is raised to version {version}")
        self.version = version


class Refuse(Exception):
    """An entry that breaks a rule: nothing of it takes effect; `keep` is what is remembered of it all the
    same.
    """

    def __init__(self, reason: str, *keep: Effect) -> None:
        super().__init__(reason)
        self.reason = reason
        self.keep = keep


@dataclass(slots=True)
class Draft:
    """The table while one entry is applied to it: reads see what the entry wrote before."""

    base: TableView
    written: dict[tuple[type[Record], Key], Record | None] = field(default_factory=dict)

    def get(self, kind: type[R], *key: Any) -> R | None:
        """The record, as this entry left it so far."""
        place = (cast("type[Record]", kind), key)
        if place in self.written:
            return cast("R | None", self.written[place])
        return self.base.get(kind, *key)

    def put(self, record: Record) -> None:
        """Writes a record."""
        kind = type(record)
        self.written[kind, key_of(record)] = record

    def drop(self, kind: type[Record], *key: Any) -> None:
        """Takes a record away."""
        self.written[kind, key] = None

    def effects(self) -> tuple[Effect, ...]:
        """All that was written, each record once, in its last form, and what is to go."""
        return tuple(
            record if record is not None else Drop(kind, key) for (kind, key), record in self.written.items()
        )


class MemoryView:
    """The table in dictionaries: for simulations, and as the yardstick the store is held against."""

    def __init__(self) -> None:
        self.records: dict[type[Record], dict[Key, Record]] = {kind: {} for kind in RECORDS}

    def get(self, kind: type[R], *key: Any) -> R | None:
        """The record, or None."""
        return cast("R | None", self.records[cast("type[Record]", kind)].get(key))

    def write(self, effects: tuple[Effect, ...]) -> None:
        """Makes an outcome's effects part of the table."""
        for effect in effects:
            if isinstance(effect, Drop):
                self.records[effect.kind].pop(effect.key, None)
            else:
                self.records[type(effect)][key_of(effect)] = effect

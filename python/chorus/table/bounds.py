"""The table's bounds on open tasks, counted as tasks begin and end rather than by looking at all of them.

Strangers, who hold the network key and are no members, have a share of their own: however many they are, they
leave the members' room alone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from chorus.table.effects import Draft, Refuse, TableView
from chorus.table.records import Counter

OPEN_MAX_PER_SUBMITTER = 1_000
OPEN_MAX_PER_MESH = 10_000
# Of one stranger, and of all of them together: an identity costs nothing.
OPEN_MAX_PER_STRANGER = 100
OPEN_MAX_OF_STRANGERS = 500
# A stranger's task that no member took within this is gone, by the leader's stamps.
STRANGER_WAIT_MS = 3600 * 1000
# A cancel that came before its task is remembered so long, by the leader's stamps.
CANCEL_KEPT_MS = 3600 * 1000

MESH = "open"
STRANGERS = "strangers"


def submitter_counter(submitted_by: str, *, stranger: bool = False) -> str:
    """The name of a submitter's counter."""
    return f"stranger:{submitted_by}" if stranger else f"open:{submitted_by}"


def limits(submitted_by: str, *, stranger: bool) -> Iterator[tuple[str, int, str]]:
    """What a task of this submitter counts for: the counter, its limit, and the limit in words."""
    own = submitter_counter(submitted_by, stranger=stranger)
    if stranger:
        yield own, OPEN_MAX_PER_STRANGER, f"open tasks of {submitted_by}, who is no member"
        yield STRANGERS, OPEN_MAX_OF_STRANGERS, "open tasks of all who are no members"
    else:
        yield own, OPEN_MAX_PER_SUBMITTER, f"open tasks of {submitted_by}"
        yield MESH, OPEN_MAX_PER_MESH, "open tasks in the mesh"


def full(view: TableView, submitted_by: str, *, stranger: bool) -> str | None:
    """The limit that one more task would break, in words; None when there is room."""
    for name, limit, words in limits(submitted_by, stranger=stranger):
        counter = view.get(Counter, name)
        if counter is not None and counter.value >= limit:
            return f"limit: {limit} {words}"
    return None


def begin(draft: Draft, submitted_by: str, *, stranger: bool) -> None:
    """Counts a task that begins; refuses one too many, naming the limit."""
    if (why := full(draft, submitted_by, stranger=stranger)) is not None:
        raise Refuse(why)
    count(draft, submitted_by, stranger=stranger)


def count(draft: Draft, submitted_by: str, *, stranger: bool) -> None:
    """Counts a task that is open already, whatever the limits: it was accepted under another mesh's."""
    for name, _, _ in limits(submitted_by, stranger=stranger):
        _count(draft, name, 1)


def end(draft: Draft, submitted_by: str, *, stranger: bool) -> None:
    """Counts a task that ends."""
    for name, _, _ in limits(submitted_by, stranger=stranger):
        _count(draft, name, -1)


def _count(draft: Draft, name: str, change: int) -> None:
    counter = draft.get(Counter, name)
    value = (counter.value if counter is not None else 0) + change
    # Kept at zero only for the mesh: submitters come and go, and their number must not cost anything.
    if value or name == MESH:
        draft.put(Counter(name, value))
    else:
        draft.drop(Counter, name)

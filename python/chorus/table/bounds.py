"""The table's bounds on open tasks, counted as tasks begin and end rather than by looking at all of them.

Pure.
"""

from __future__ import annotations

from chorus.table.effects import Draft, Refuse
from chorus.table.records import Counter

OPEN_MAX_PER_SUBMITTER = 1_000
OPEN_MAX_PER_MESH = 10_000
# A cancel that came before its task is remembered so long, by the leader's stamps.
CANCEL_KEPT_MS = 3600 * 1000

MESH = "open"


def submitter_counter(submitted_by: str) -> str:
    """The name of a submitter's counter."""
    return f"open:{submitted_by}"


def count_open(draft: Draft, submitted_by: str, change: int) -> None:
    """Counts a task that begins (1) or ends (-1); refuses one too many, naming the limit."""
    for name, limit, whose in (
        (submitter_counter(submitted_by), OPEN_MAX_PER_SUBMITTER, f"open tasks of {submitted_by}"),
        (MESH, OPEN_MAX_PER_MESH, "open tasks in the mesh"),
    ):
        counter = draft.get(Counter, name)
        value = (counter.value if counter is not None else 0) + change
        if change > 0 and value > limit:
            raise Refuse(f"limit: {limit} {whose}")
        # Kept at zero only for the mesh: submitters come and go, and their number must not cost anything.
        if value or name == MESH:
            draft.put(Counter(name, value))
        else:
            draft.written.pop((Counter, (name,)), None)
            draft.drop(Counter, name)

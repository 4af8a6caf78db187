"""Asks those who hold what an attempt left: its executor, or when that one does not have it, the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from chorus.api.problems import GONE_PREFIX
from chorus.hub import HubError
from chorus.table.reader import TableReader
from chorus.table.rows import AttemptRow

# What a holder says that does not answer, or has nothing: another may have it. Any other error is the answer.
_ASK_NEXT: Final = frozenset({"unavailable", "timeout", "closed", "not_found"})

T = TypeVar("T")


def holders(table: TableReader, attempt: AttemptRow) -> list[str]:
    """The members to ask, those that are present first. Raises HubError when none is left."""
    if attempt.open:
        return [attempt.agent]
    held = table.held.holders(attempt.task_id, attempt.attempt)
    if not held:
        who = attempt.agent_id or attempt.agent
        why = f"only agent {who} held what attempt {attempt.attempt} left, and it was removed from the mesh"
        raise HubError(f"{GONE_PREFIX} {why}", code="not_found")
    return [holder.peer for holder in sorted(held, key=lambda holder: not holder.present)]


async def from_holder(table: TableReader, attempt: AttemptRow, ask: Callable[[str], Awaitable[T]]) -> T:
    """What the first holder that has it answers to `ask`. Raises HubError: that of the first one asked."""
    failure: HubError | None = None
    for peer in holders(table, attempt):
        try:
            return await ask(peer)
        except HubError as error:
            failure = failure or error
            if error.code not in _ASK_NEXT or error.message.startswith(GONE_PREFIX):
                raise
    assert failure is not None
    raise failure

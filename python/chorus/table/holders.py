"""The rule for entries of the type `holders`: which members have what of a task on their disks. Pure.

Who had it first stands in other entries: those whom its `submit` names have the inputs of a task (the blobs
of its source and standard input), and an attempt's executor has what the attempt left (output and artifacts).
An entry `holders` names one more, which has it on its disk. A member that was removed holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chorus.table.effects import Draft, Refuse
from chorus.table.entries import Entry, Fact, Number, Peer
from chorus.table.records import INPUTS, Attempt, Holding, Member, Task
from chorus.table.submitted import TaskId

Touched = tuple[str, ...]

# Two are wanted. More come when holders go and come back; beyond this a member only makes the table grow.
HOLDERS_MAX: Final = 8


class Holders(Fact):
    """`peer` holds the inputs of a task, or what one of its attempts left."""

    task_id: TaskId
    attempt: Number | None = None
    peer: Peer


def holders(draft: Draft, entry: Entry, fact: Holders) -> Touched:
    """One more holder, named by itself or by a holder that gave it a copy."""
    task = draft.get(Task, fact.task_id)
    if task is None:
        raise Refuse("unknown: no such task")
    if draft.get(Member, fact.peer) is None:
        raise Refuse("no such member")
    first = task.holders
    if fact.attempt is not None:
        attempt = draft.get(Attempt, fact.task_id, fact.attempt)
        if attempt is None:
            raise Refuse("no such attempt")
        first = (attempt.agent,)
    part = INPUTS if fact.attempt is None else fact.attempt
    holding = draft.get(Holding, fact.task_id, part)
    named = first if holding is None else holding.peers
    if entry.author != fact.peer and entry.author not in named:
        raise Refuse("only a holder names another")
    listed = tuple(dict.fromkeys(peer for peer in named if draft.get(Member, peer) is not None))
    if fact.peer in listed:
        raise Refuse("known: it is named as a holder")
    if len(listed) >= HOLDERS_MAX:
        raise Refuse(f"limit: {HOLDERS_MAX} members hold it")
    draft.put(Holding(fact.task_id, part, (*listed, fact.peer)))
    return (fact.task_id,)


FACTS: dict[str, type[Fact]] = {"holders": Holders}
RULES: dict[str, Callable[[Draft, Entry, Any], Touched]] = {"holders": holders}

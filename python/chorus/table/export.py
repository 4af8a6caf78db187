"""A table as entries for `chorus.table.imports`: what an agent takes along when it leaves a mesh for another.

The entries' ids follow from what they bring, so that the same table always makes the same entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import orjson

from chorus.table.carried import Line
from chorus.table.import_entries import PART_MAX_CHARS
from chorus.table.records import (
    VALUES,
    Attempt,
    Ballot,
    Body,
    Change,
    Decision,
    FormerMember,
    Member,
    Record,
    Recorded,
    Removed,
    Superseded,
    Task,
    Version,
    Vote,
)
from chorus.table.schema import FORMS
from chorus.table.store import TableStore
from chorus.wire.ids import encode
from chorus.wire.task import GOAL_FIELDS

# What is longer comes in parts: an entry holds 256 KiB, its envelope included.
STORY_MAX_BYTES: Final = 200 * 1024
RECOVERED: Final = "the mesh was recovered"
LEFT: Final = "the agent left its mesh"
_ID_BYTES: Final = 16


def export(store: TableStore, *, origin: str, recovers: bool, own: str | None) -> Iterator[Line]:
    """All that the table of mesh `origin` holds, a record at a time: tables are larger than the memory.

    Without `recovers` only what is this agent's, peer id `own`, as another mesh takes nothing else from it.
    Nothing may be written to the table meanwhile.
    """
    export = _Export(store, origin, RECOVERED if recovers else LEFT, None if recovers else own)
    if recovers:
        yield from export.members()
    yield from export.tasks()
    yield from export.decisions()
    yield from export.versions()


class _Export:
    def __init__(self, store: TableStore, origin: str, why: str, own: str | None) -> None:
        self._store, self._origin, self._why, self._own = store, origin, why, own

    def members(self) -> Iterator[Line]:
        """The names in the history. Whoever is still there joins anew."""
        for listed in self._store.select(Member):
            body = {**_fields(listed, "peer", "agent_id", "role", "joined_at"), "reason": self._why}
            yield self._line("import_member", body, listed.peer)
        for former in self._store.select(FormerMember):
            yield self._line("import_member", _without(former, "raft_id"), former.peer)

    def tasks(self) -> Iterator[Line]:
        for task in self._store.select(Task, order="idx"):
            body = self._store.get(Body, task.task_id)
            if body is None or not self._takes(task.vouched_by):
                continue
            story = {
                "task": body.task,
                **_without(task, "task_id", "idx", "project", "priority", "max_attempts", "changes"),
                "attempts": self._of(Attempt, task.task_id),
                "changes": self._of(Change, task.task_id, "n"),
                "superseded": self._of(Superseded, task.task_id, "idx"),
                "recorded": self._of(Recorded, task.task_id),
                "removed": next(iter(self._of(Removed, task.task_id)), None),
            }
            head = {"task_id": task.task_id, "why": self._why}
            yield from self._story(_type_of(story), head, task.task_id, story)

    def decisions(self) -> Iterator[Line]:
        """Each decision record and the vote on it."""
        for decision in self._store.select(Decision, order="idx"):
            if not self._takes(decision.author):
                continue
            yield self._line("import_decision", _without(decision, "idx"), decision.hash)
            if (ballot := self._store.get(Ballot, decision.hash)) is not None:
                votes = [_without(vote, "hash") for vote in self._store.select(Vote, hash=decision.hash)]
                story = {**_without(ballot, "hash", "approve", "reject", "abstain"), "votes": votes}
                yield from self._story("import_ballot", {"hash": ballot.hash}, ballot.hash, story)

    def versions(self) -> Iterator[Line]:
        for version in self._store.select(Version, order="idx"):
            if self._takes(version.author):
                body = {**_without(version, "version", "idx"), "number": version.version}
                key = (version.address, str(version.version))
                yield self._line("import_version", {**body, "origin": self._origin}, *key)

    def _takes(self, actor: str) -> bool:
        return self._own in (None, actor)

    def _of(self, kind: type[Record], task_id: str, *leave_out: str) -> list[dict[str, Any]]:
        rows = self._store.select(kind, task_id=task_id)
        return [_without(record, "task_id", *leave_out) for record in rows]

    def _story(self, type: str, head: dict[str, Any], of: str, story: dict[str, Any]) -> Iterator[Line]:
        text = orjson.dumps(story)
        if len(text) <= STORY_MAX_BYTES:
            yield self._line(type, {**head, "story": story}, of)
            return
        whole = text.decode()
        pieces = [whole[at : at + PART_MAX_CHARS] for at in range(0, len(whole), PART_MAX_CHARS)]
        for n, piece in enumerate(pieces):
            yield self._line("import_part", {"of": of, "n": n, "text": piece}, of, str(n))
        yield self._line(type, {**head, "parts": len(pieces)}, of)

    def _line(self, type: str, body: dict[str, Any], *key: str) -> Line:
        named = "\n".join(("chorus/v1/import", self._origin, type, *key))
        return Line(encode(hashlib.sha256(named.encode()).digest()[:_ID_BYTES]), type, body)


def _type_of(story: dict[str, Any]) -> str:
    """How the story of a task is brought: as a goal's only where it could not be told otherwise, since not
    every mesh knows goals.
    """
    results = [one["result"] for one in (*story["attempts"], *story["superseded"])]
    reported = any(result is not None and "goal" in result for result in results)
    return "import_goal" if reported or not story["task"].keys().isdisjoint(GOAL_FIELDS) else "import_task"


def _without(record: Record, *names: str) -> dict[str, Any]:
    kind = type(record)
    values = zip(FORMS[kind].names, VALUES[kind](record), strict=True)
    return {name: value for name, value in values if name not in names}


def _fields(record: Record, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}

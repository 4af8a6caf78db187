"""A table with decisions in it, and their records in a fake DHT: real keys, real entries, no network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from chorus import decisions
from chorus.core import Identity
from chorus.hub import DhtValue
from chorus.table.effects import Outcome
from chorus.table.entries import Entry
from chorus.table.store import TableStore
from chorus.testing.decision_records import DECIDED, made, signed
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.ids import new_id
from chorus.wire.times import rfc3339

STAMP_MS = 1_764_000_000_000
STEP_MS = 100


class Decided:
    """Writes the table at `path` entry by entry; member `a` founded the mesh and leads it."""

    def __init__(self, path: Path, mesh: FakeMesh | None = None, name: str = "m") -> None:
        self.store = TableStore(path)
        self.mesh = mesh or FakeMesh()
        self.members = {name: Identity.generate() for name in "abc"}
        self._numbers = itertools.count(1)
        self.say("a", "found", mesh=name, settings={}, agent={"agent_id": "a"})
        self.say("a", "leader", term=1)
        for name in "bc":
            self.say("a", "join", peer=self.peer(name), agent_id=name)

    def peer(self, name: str) -> str:
        """A member's peer id."""
        return self.members[name].peer_id

    def say(self, author: str, type: str, **body: Any) -> Outcome:
        """One entry by a member."""
        index = self.store.applied + 1
        stamp = STAMP_MS + index * STEP_MS
        entry = Entry(index, stamp, type, f"entry-{index}", self.peer(author), index - 1, body)
        (outcome,) = self.store.apply_batch([entry])
        return outcome

    def attempt(
        self,
        agent: str,
        task_id: str | None = None,
        attempt: int = 1,
        outcome: str = "completed",
        **task: Any,
    ) -> str:
        """An attempt that ended; the first one submits the task. Returns its id."""
        if task_id is None:
            task_id = new_id(STAMP_MS, next(self._numbers).to_bytes(10, "big"))
            body = {"title": "t", "commands": ["true"], **task}
            vouched = self.peer("a")
            assert self.say(
                "a", "submit", task_id=task_id, task=body, submitter=vouched, vouched_by=vouched
            ).accepted
        named = {"task_id": task_id, "attempt": attempt}
        assert self.say("a", "award", **named, agent=self.peer(agent)).accepted
        assert self.say(agent, "claim", **named).accepted
        assert self.say(agent, "result", **named, outcome=outcome, exit_code=0).accepted
        return task_id

    def decide(self, agent: str, task_id: str | None = None, attempt: int = 1, **record: Any) -> str:
        """A member's decision on a task, made now unless it is given. Returns the record's hash."""
        if task_id is None:
            task = {name: record[name] for name in ("title", "project") if name in record}
            task_id = self.attempt(agent, **task)
        values = {"title": "t", "project": "", "created_at": rfc3339(STAMP_MS), **record}
        kind = values.pop("kind", "task_result")
        values.setdefault("decided", DECIDED[kind])
        identity = self.members[agent]
        plain = made(kind, identity, agent_id=agent, task_id=task_id, attempt=attempt, **values)
        encoded = signed(plain, identity)
        return self.publish(agent, encoded, plain)

    def publish(self, agent: str, encoded: bytes, record: dict[str, Any], **entry: Any) -> str:
        """Puts a record into the DHT and enters it."""
        name = decisions.hash_of(encoded)
        said = {field: record[field] for field in ("address", "kind", "task_id", "attempt")}
        self.put("decision", name, encoded, agent, record["role"])
        outcome = self.say(agent, "decision", **{**said, "hash": name, "agent": agent, **entry})
        assert outcome.accepted, outcome.reason
        return name

    def put(self, kind: str, name: str, value: bytes, author: str, role: str = "") -> None:
        """Puts a value into the DHT."""
        self.mesh.records[f"/chorus/{kind}/{name}"] = DhtValue(self.peer(author), role or None, 0, 0, value)

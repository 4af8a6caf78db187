"""What a member, or a stranger by gossip, says stays where it belongs: every coordinator goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agents import World, fresh_id, world

from chorus.table.records import RECORDS
from chorus.testing.fake_hub import _Entry

TOO_LATE = "9999-12-31T23:59:59-14:00"
BODIES = [
    b'{"text": "\\ud800"}', b'{"number": 1e999}', b'{"number": ' + b"9" * 400 + b"}",
    b"[" * 2000 + b"]" * 2000, b"\xff\xfe", b"", b"null", b"[]", b'{"a": {"b"',
]  # fmt: skip


def content(w: World, name: str) -> list[Any]:
    """All that an agent's table holds."""
    return [list(w[name].parts.store.records(kind)) for kind in RECORDS]


async def test_no_entry_of_a_member_stops_the_coordinators(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        b = w["b"].peer
        task = {"title": "t", "commands": ["true"], "start_by": TOO_LATE}
        w.mesh.append("submit", b, {"task_id": fresh_id(), "task": task, "submitter": b, "vouched_by": b})
        w.mesh.append("news", b, {"of": "tomorrow"})
        w.mesh.append("table_version", b, {"version": 2})
        for body in BODIES:
            index = len(w.mesh.entries) + 1
            head = {"index": index, "term": 1, "stamp": 2**64 - 1, "type": "cancel", "id": fresh_id()}
            w.mesh.entries.append(_Entry({**head, "author": b, "seen": index - 1}, body))
        answer = await w["c"].submit()
        task_id = answer["task"]["task_id"]
        for name in "abc":
            await w[name].state(task_id, "claimed")
            assert w[name].parts.follower.error is None
            assert (await w[name].call("health"))["ok"] is True
        last = len(w.mesh.entries)
        for name in "abc":
            await w[name].until(lambda name=name: w[name].parts.store.applied >= last, "applied")  # type: ignore[misc]
        assert content(w, "a") == content(w, "b") == content(w, "c")


@pytest.mark.parametrize("start_by", [TOO_LATE, "2026-01-01T00:00:00+02:00"])
async def test_a_task_with_a_time_is_the_same_task_when_it_is_sent_again(
    tmp_path: Path, start_by: str
) -> None:
    async with world(tmp_path, "a") as w:
        task_id = fresh_id()
        if start_by == TOO_LATE:
            with pytest.raises(Exception, match="start_by: give a time of the years 1970 to 9998"):
                await w["a"].submit(task_id=task_id, start_by=start_by)
            return
        first = await w["a"].submit(task_id=task_id, start_by=start_by, env={"A": "1"}, timeout_s=90)
        again = await w["a"].submit(task_id=task_id, start_by=start_by, env={"A": "1"}, timeout_s=90)
        assert (first["created"], again["created"]) == (True, False)
        assert first["task"]["start_by"] == "2025-12-31T22:00:00.000Z"

"""What a member, or a stranger by gossip, says stays where it belongs: every coordinator goes on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from agents import World, fresh_id, world

from chorus.coordinator import gossip, heard
from chorus.coordinator.follower import kind_of
from chorus.hub import HubInvalid
from chorus.table import bounds
from chorus.table.records import RECORDS
from chorus.testing.fake_hub import _Entry

TOO_LATE = "9999-12-31T23:59:59-14:00"
DEEP = b"[" * 900 + b"]" * 900
BODIES = [
    b'{"text": "\\ud800"}', b'{"number": 1e999}', b'{"number": ' + b"9" * 400 + b"}",
    b"[" * 2000 + b"]" * 2000,
    b'{"signer": "x", "submitter": "x", "a": ' + DEEP + b"}", b"\xff\xfe", b"", b"null", b"[]", b'{"a": {"b"',
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
        for type, body in itertools.product(("cancel", "submit", "result", "news"), BODIES):
            index = len(w.mesh.entries) + 1
            head = {"index": index, "term": 1, "stamp": 2**64 - 1, "seen": index - 1, "author": b}
            w.mesh.entries.append(_Entry({**head, "type": type, "id": fresh_id()}, body))
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


def types(w: World) -> list[str]:
    """The types of all entries of the log."""
    return [entry.head["type"] for entry in w.mesh.entries]


async def heard_by_all(w: World) -> None:
    """Returns when every coordinator has heard what was published so far, and has proposed what it will."""
    marker = fresh_id()
    task = {"title": "marker", "commands": ["true"], "task_id": marker}
    await w["c"].hub.publish("chorus/tasks", "task_announcement", task)
    for name in w.agents:
        await w[name].until(lambda name=name: w[name].task(marker) is not None, "the marker")  # type: ignore[misc]
        await w[name].until(lambda name=name: not w[name].parts.gossip._heard, "all heard")  # type: ignore[misc]


async def test_cancels_of_unknown_tasks_stay_out_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip.Gossip.__init__, "__kwdefaults__", {"patience_s": 0.01})
    async with world(tmp_path) as w:
        await w.takes_goals()
        x, y = w.mesh.hub("x", "foreign"), w.mesh.hub("y", "foreign")
        wanted, kept, last = fresh_id(), fresh_id(), fresh_id()
        for n in range(500):
            await x.publish("chorus/tasks", "task_cancel", {"task_id": fresh_id(), "reason": f"{n}"})
        for hub, task_id in ((x, wanted), (y, kept), (x, last)):
            await hub.publish("chorus/tasks", "task_cancel", {"task_id": task_id, "reason": "never mind"})
        early = w["a"].parts.gossip._early
        await w["a"].until(lambda: len(early) == heard.CANCELS_MAX_PER_SIGNER + 1, "remembered")
        await heard_by_all(w)
        assert "cancel" not in types(w)
        # By gossip: the cancel applies when its signer is the one that submits.
        await x.publish("chorus/tasks", "task_announcement", {"title": "t", "task_id": wanted})
        task = await w["a"].state(wanted, "cancelled")
        assert (task.reason, task.submitter) == ("never mind", "peer-x")
        await x.publish("chorus/tasks", "task_announcement", {"title": "t", "task_id": kept})
        await w["a"].state(kept, "announced")
        # Over HTTP the submitter is the agent.
        await w["b"].submit(task_id=last, commands=[])
        await w["a"].state(last, "announced")
        mine = fresh_id()
        await w["c"].hub.publish("chorus/tasks", "task_cancel", {"task_id": mine})
        await w["c"].submit(task_id=mine, commands=[])
        await w["a"].state(mine, "cancelled")
        await heard_by_all(w)
        assert types(w).count("cancel") == 2


async def test_a_cancel_of_an_unknown_task_over_http_is_an_entry(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as w:
        task_id = fresh_id()
        assert (await w["a"].call("table.cancel", task_id=task_id))["cancelled"]
        await w["a"].submit(task_id=task_id)
        await w["a"].state(task_id, "cancelled")


async def test_one_stranger_fills_neither_the_mesh_nor_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip.Gossip.__init__, "__kwdefaults__", {"patience_s": 0.01})
    async with world(tmp_path) as w:
        await w.takes_goals()
        x = w.mesh.hub("x", "foreign")
        before = len(w.mesh.entries)
        for n in range(4 * heard.ENTRIES_MAX_PER_STRANGER):
            await x.publish("chorus/tasks", "task_announcement", {"title": f"{n}"})
        await heard_by_all(w)
        # Tasks without commands stay open: their number is that of the share. Any agent may lose its patience
        # with the first one, and proposes no more than its own bound.
        strangers = [task for task in w["a"].parts.store.open_tasks() if task.stranger]
        assert len(strangers) == bounds.OPEN_MAX_PER_STRANGER
        assert types(w)[before:].count("goal") <= len(w.agents) * heard.ENTRIES_MAX_PER_STRANGER
        assert (await w["b"].submit(commands=[]))["created"]
        # Submitting and cancelling in turn is bounded as well.
        for task in strangers:
            await x.publish("chorus/tasks", "task_cancel", {"task_id": task.task_id})
        await heard_by_all(w)
        assert types(w)[before:].count("cancel") <= len(w.agents) * bounds.OPEN_MAX_PER_STRANGER


async def test_many_strangers_leave_members_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_STRANGER", 3)
    monkeypatch.setattr(bounds, "OPEN_MAX_OF_STRANGERS", 7)
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_MESH", 2)
    async with world(tmp_path) as w:
        await w.takes_goals()
        for name in "uvwxyz":
            hub = w.mesh.hub(name, "foreign")
            for _ in range(5):
                await hub.publish("chorus/tasks", "task_announcement", {"title": "t"})
        await w["a"].until(
            lambda: len(w["a"].parts.store.open_tasks()) == 7, "the strangers' share is used up"
        )
        for name in "bc":
            assert (await w[name].submit(commands=[]))["created"]


async def test_a_strangers_task_that_nobody_takes_is_gone_after_an_hour(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.takes_goals()
        x, task_id, mine = w.mesh.hub("x", "foreign"), fresh_id(), fresh_id()
        await x.publish("chorus/tasks", "task_announcement", {"title": "t", "task_id": task_id})
        await w["a"].state(task_id, "announced")
        await w["a"].submit(task_id=mine, commands=[])
        w.mesh.now_ms += bounds.STRANGER_WAIT_MS
        await w["a"].parts.leading.tick()
        expired = await w["b"].state(task_id, "expired")
        assert expired.reason == "no member took it within an hour"
        await w["b"].state(mine, "announced")


async def test_a_task_that_waits_for_an_unknown_one_is_refused_before_it_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip.Gossip.__init__, "__kwdefaults__", {"patience_s": 0.05})
    async with world(tmp_path) as w:
        unknown = fresh_id()
        with pytest.raises(HubInvalid, match=f"depends_on: the mesh knows no task {unknown}"):
            await w["b"].submit(depends_on=[unknown])
        x = w.mesh.hub("x", "foreign")
        task: dict[str, Any] = {"title": "t", "commands": ["true"]}
        await x.publish("chorus/tasks", "task_announcement", {**task, "depends_on": [unknown]})
        await heard_by_all(w)
        assert types(w).count("submit") == 1
        # What comes right after what it waits for is in time.
        first, second = fresh_id(), fresh_id()
        await x.publish("chorus/tasks", "task_announcement", {**task, "task_id": first})
        await x.publish(
            "chorus/tasks", "task_announcement", {**task, "task_id": second, "depends_on": [first]}
        )
        await w["a"].state(second, "announced")


def test_the_labels_of_refusals_are_few() -> None:
    reasons = {kind_of(f"term {n} is not newer than {n + 1}") for n in range(1000)}
    reasons |= {kind_of(f"limit: {n} open tasks of x{n}") for n in range(1000)}
    assert reasons == {"term n is not newer than n", "limit"}

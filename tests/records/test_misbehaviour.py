"""A member and strangers that misbehave, over real cores: every coordinator goes on, with the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mesh import SECRET, Mesh, mesh, until

from chorus.coordinator import heard
from chorus.core import Node
from chorus.hub import HubError
from chorus.table import bounds
from chorus.table.records import RECORDS
from chorus.wire.ids import new_id

TOO_LATE = "9999-12-31T23:59:59-14:00"


async def said(m: Mesh, type: str, body: dict[str, Any]) -> None:
    """An entry of a member whose own core lets everything pass."""
    try:
        await m["b"].hub.propose(type, body, timeout=20)
    except HubError:
        # Refused before it was in the log, which is as good.
        return


def tables(m: Mesh) -> list[list[Any]]:
    """All that each agent's table holds."""
    found = []
    for agent in m.agents:
        assert agent.coordinator is not None
        found.append([list(agent.coordinator.store.records(kind)) for kind in RECORDS])
    return found


async def last_index(m: Mesh) -> int:
    """How far the log is committed, when every agent has applied that far."""
    commit = (await m.leader.hub.raft_status()).commit
    for agent in m.agents:
        await until(lambda agent=agent: agent.table.applied() >= commit)  # type: ignore[misc]
    return commit


def alike(m: Mesh) -> bool:
    """Whether all agents have the same table; each applies the log in its own time."""
    one, *others = tables(m)
    return all(other == one for other in others)


async def test_no_entry_of_a_member_stops_a_mesh(tmp_path: Path) -> None:
    async with mesh(tmp_path) as m:
        b = m["b"].hub.peer_id
        task = {"title": "t", "commands": ["true"]}
        for bad in ({"start_by": TOO_LATE}, {"submitted_at": TOO_LATE}, {"priority": "5"}, {"start_by": -1}):
            body = {"task_id": new_id(), "task": {**task, **bad}, "submitter": b, "vouched_by": b}
            await said(m, "submit", body)
        await said(m, "news", {"of": "tomorrow"})
        await said(m, "table_version", {"version": 2})
        await said(m, "member", {"agent_id": "b", "table_version": 2**31})
        deep: Any = []
        for _ in range(100):
            deep = [deep]
        await said(m, "cancel", {"task_id": new_id(), "deep": deep})
        executor, task_id = await m.task()
        bad_result = {"task_id": task_id, "attempt": 1, "outcome": "completed", "artifacts": [{}]}
        answer = await executor.propose("result", **bad_result)
        assert answer["reason"].startswith("the body does not fit: artifacts")
        assert (await executor.propose("result", **{**bad_result, "artifacts": []}))["accepted"]
        await last_index(m)
        for agent in m.agents:
            assert (await agent.call("health"))["ok"] is True
        await until(lambda: alike(m))
        # Also after a new start, from the same log.
        await m["b"].restart()
        await m["b"].submit(title="t")


async def test_a_stranger_fills_neither_table_nor_log(tmp_path: Path) -> None:
    async with mesh(tmp_path) as m:
        addresses = [address for agent in m.agents if agent.node for address in agent.node.addresses]
        async with Node(SECRET, bootstrap=addresses, threads=1) as stranger:
            # Gossip reaches the mesh as soon as one announcement does.
            first = new_id()

            async def arrived() -> bool:
                task = {"title": "first", "task_id": first}
                await stranger.publish("chorus/tasks", "task_announcement", task)
                return m.leader.table.task(first) is not None

            await until(arrived)
            before = await last_index(m)
            for _ in range(300):
                await stranger.publish("chorus/tasks", "task_cancel", {"task_id": new_id(), "reason": "x"})
            for n in range(2 * heard.ENTRIES_MAX_PER_STRANGER):
                task = {"title": f"{n}", "depends_on": [new_id()] if n % 2 else []}
                await stranger.publish("chorus/tasks", "task_announcement", task)
            # The last of what it says, in order, is the cancel of its first task.
            await stranger.publish("chorus/tasks", "task_cancel", {"task_id": first, "reason": "enough"})
            await until(lambda: (row := m.leader.table.task(first)) is not None and row.state == "cancelled")
            after = await last_index(m)
            assert after - before <= heard.ENTRIES_MAX_PER_STRANGER
            open_tasks = [row for row in m.leader.table.open_tasks() if row.submitter == stranger.peer_id]
            assert len(open_tasks) <= bounds.OPEN_MAX_PER_STRANGER
            assert all(not row.task["depends_on"] for row in open_tasks)
            executor, _ = await m.task()
            assert executor in m.agents
        await until(lambda: alike(m))

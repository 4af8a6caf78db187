"""The handle on the assignment: what counts now, and each change once, also after news were lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chorus.config import Assignment
from chorus.config.values import as_json
from chorus.hub import Request
from chorus.process import Assignments, assignments
from chorus.testing.fake_hub import FakeMesh

DEADLINE_S = 20.0
FIRST = Assignment(role="developer")
SECOND = Assignment(role="reviewer", max_tasks=1, bootstrap_peers=("/ip4/127.0.0.1/tcp/1",))


class Parent:
    """What the agent's parent answers and tells."""

    def __init__(self, mesh: FakeMesh) -> None:
        self.hub = mesh.hub("a", "agent")
        self.said: dict[str, Any] = {"number": 0, "assignment": as_json(FIRST)}

    async def answer(self, request: Request) -> dict[str, Any]:
        return self.said

    async def change(self, number: int, assignment: Any) -> None:
        self.said = {"number": number, "assignment": assignment}
        await self.hub.publish_local(assignments.TOPIC, self.said)


async def following(mesh: FakeMesh, handle: Assignments) -> asyncio.Task[None]:
    work = asyncio.create_task(handle.follow(mesh.hub("a", "mind")))
    while not any(hub._feeds for hub in mesh.agent("a").hubs):  # noqa: ASYNC110
        await asyncio.sleep(0)
    return work


async def test_a_change_is_taken_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments, "LOOK_AGAIN_S", 3600.0)
    mesh, handle = FakeMesh(), Assignments(FIRST)
    parent = Parent(mesh)
    await parent.hub.offer("agent", parent.answer)
    work = await following(mesh, handle)
    changes = handle.changes()
    told = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await parent.change(1, as_json(SECOND))
    async with asyncio.timeout(DEADLINE_S):
        assert await told == SECOND
    assert handle.current == SECOND
    work.cancel()


async def test_what_was_told_while_nobody_heard_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments, "LOOK_AGAIN_S", 0.01)
    mesh, handle = FakeMesh(), Assignments(FIRST)
    parent = Parent(mesh)
    # Its parent does not answer yet, and tells nothing: it is only there later on.
    work = await following(mesh, handle)
    parent.said = {"number": 3, "assignment": as_json(SECOND)}
    await parent.hub.offer("agent", parent.answer)
    async with asyncio.timeout(DEADLINE_S):
        async for heard in handle.changes():
            assert heard == SECOND
            break
    work.cancel()


async def test_older_news_and_nonsense_change_nothing() -> None:
    mesh, handle = FakeMesh(), Assignments(FIRST)
    parent = Parent(mesh)
    parent.said["number"] = 5
    await parent.hub.offer("agent", parent.answer)
    work = await following(mesh, handle)
    changes = handle.changes()
    told = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    for number, said in ((4, as_json(SECOND)), (6, {"role": 3}), (7, None), (8, {"unknown": 1})):
        await parent.hub.publish_local(assignments.TOPIC, {"number": number, "assignment": said})
    await parent.hub.publish_local(assignments.TOPIC, "nonsense")
    await parent.change(9, as_json(SECOND))
    async with asyncio.timeout(DEADLINE_S):
        assert await told == SECOND
    assert handle._number == 9
    work.cancel()


async def test_of_changes_in_quick_succession_the_last_one_is_told() -> None:
    handle = Assignments(FIRST)
    changes = handle.changes()
    told = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    for most in range(2, 6):
        handle.take(Assignment(max_tasks=most))
    assert (await told).max_tasks == 5
    later = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    assert not later.done()
    handle.take(FIRST)
    assert await later == FIRST

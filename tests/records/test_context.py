"""A task's context among real agents: the leader chooses, all read for themselves, a new leader agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mesh import Agent, Mesh, mesh, until

from chorus.hub import HubNotFound
from chorus.wire.ids import new_id

LIKE = "count the words of a book"


async def indexed(m: Mesh, *names: str) -> None:
    """Every agent's index has these decisions, or knows that it cannot read them."""
    for agent in m.agents:
        assert agent.coordinator is not None
        feed = agent.coordinator.curating.feed

        async def there(agent: Agent = agent, feed: Any = feed) -> bool:
            counts = await feed.counts()
            listed = len(agent.table.decisions().items)
            return (
                bool(counts) and counts["pending"] == 0 and counts["documents"] + counts["skipped"] == listed
            )

        await until(there)


async def context(agent: Agent, task_id: str, **head: Any) -> dict[str, Any]:
    return await agent.call("context", task_id=task_id, **head)


async def test_an_earlier_task_is_in_the_context_of_one_like_it(tmp_path: Path) -> None:
    async with mesh(tmp_path) as m:
        author, _, name = await m.decided(title=LIKE, project="books")
        await m.decided(title="bake a cake", project="kitchen")
        await indexed(m)
        _, task_id = await m.task(title="count the words of another book", project="books")
        said = []
        for agent in m.agents:
            await until(lambda agent=agent: agent.table.task(task_id) is not None)  # type: ignore[misc]
            answer = await context(agent, task_id)
            (item,) = answer["items"]
            assert (item["hash"], item["author"], item["title"]) == (name, author.hub.peer_id, LIKE)
            assert "project" in item["why"]
            assert answer["by"] == m["a"].hub.peer_id
            said.append({**answer, "by": ""})
        assert said[0] == said[1] == said[2]
        # Another leads, and says the same.
        await m["a"].hub.raft_transfer(m["b"].hub.peer_id)
        await until(lambda: m["c"].table.mesh().leader == m["b"].hub.peer_id)  # type: ignore[union-attr]
        answer = await context(m["c"], task_id)
        assert answer["by"] == m["b"].hub.peer_id
        assert {**answer, "by": ""} == said[0]
        over = await context(m["c"], task_id, budget_tokens=1)
        assert (over["items"], over["left_out"][0]["reason"]) == ([], "over the budget")
        with pytest.raises(HubNotFound):
            await context(m["c"], new_id())


async def test_an_earlier_attempt_is_context_until_a_later_one_supersedes_it(tmp_path: Path) -> None:
    async with mesh(tmp_path, "a") as m:
        agent, task_id = await m.task(title=LIKE)
        first = await agent.decide(task_id, outcome="failed")
        await agent.call("table.retry", task_id=task_id)
        await indexed(m)
        assert [item["hash"] for item in (await context(agent, task_id))["items"]] == [first]
        await until(lambda: (row := agent.table.task(task_id)) is not None and row.state == "claimed")
        earlier = agent.table.decision(first)
        assert earlier is not None
        second = await agent.decide(task_id, attempt=2, supersedes=[earlier.address])
        await indexed(m)
        m["a"].coordinator.curating.forget()  # type: ignore[union-attr]
        # Its own decision is nothing earlier; for another task it is, and the first no more.
        assert (await context(agent, task_id))["items"] == []
        _, other = await m.task(title=LIKE)
        assert [item["hash"] for item in (await context(agent, other))["items"]] == [second]


async def test_who_may_not_read_a_record_is_told_that_it_is_there(tmp_path: Path) -> None:
    async with mesh(tmp_path, "abc", {"a": "architect", "b": "architect"}) as m:
        m["c"].accepting = False
        await m["c"].call("profile.refresh")
        await until(lambda: not m["a"].table.member(m["c"].hub.peer_id).accepting)  # type: ignore[union-attr]
        _, _, name = await m.decided(title=LIKE)
        await indexed(m)
        _, task_id = await m.task(title=LIKE)
        (item,) = (await context(m["b"], task_id))["items"]
        assert item["hash"] == name
        await until(lambda: m["c"].table.task(task_id) is not None)
        answer = await context(m["c"], task_id)
        assert answer["items"] == []
        assert [(item["hash"], item["reason"]) for item in answer["left_out"]] == [
            (name, "sealed for others")
        ]
        assert m["c"].coordinator.curating.feed.reader.search("book") == []  # type: ignore[union-attr]


async def test_a_decision_that_was_voted_down_is_left_out(tmp_path: Path) -> None:
    async with mesh(tmp_path, "a") as m:
        _, _, name = await m.decided(title=LIKE)
        await indexed(m)
        _, task_id = await m.task(title=LIKE)
        assert [item["hash"] for item in (await context(m["a"], task_id))["items"]] == [name]
        await m["a"].call("votes.cast", hash=name, choice="reject")
        m["a"].coordinator.curating.forget()  # type: ignore[union-attr]
        assert (await context(m["a"], task_id))["items"] == []

"""Votes on decisions among real agents: cast anywhere, counted once, concluded by a record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mesh import Agent, Mesh, mesh, until

from chorus import decisions
from chorus.hub import HubInvalid, HubNotFound, HubRefused
from chorus.wire.messages import DECISIONS


def state(agent: Agent, name: str) -> str | None:
    ballot = agent.table.ballot(name)
    return None if ballot is None else ballot.state


async def concluded(m: Mesh, name: str) -> decisions.VerifiedRecord:
    """The outcome's record, as the last agent reads it."""

    def there() -> bool:
        ballot = m.agents[-1].table.ballot(name)
        return (
            ballot is not None
            and ballot.record is not None
            and m.agents[-1].table.decision(ballot.record) is not None
        )

    await until(there)
    ballot = m.agents[-1].table.ballot(name)
    assert ballot is not None
    assert ballot.record is not None
    row = m.agents[-1].table.decision(ballot.record)
    return await decisions.fetch(m.agents[-1].hub, ballot.record, listed=row)


async def test_members_vote_and_the_outcome_is_a_record(tmp_path: Path) -> None:
    async with mesh(tmp_path) as m:
        _, task_id, name = await m.decided(title="choose a name", project="names")
        heard = await m["a"].hub.subscribe(DECISIONS).open()
        said = await m["b"].call("votes.cast", hash=name, choice="approve", reason="short", by="ann")
        assert said["ballot"]["votes"][0]["by"] == "ann"
        # Again and the other way round: one member, one vote.
        await m["b"].call("votes.cast", hash=name, choice="reject")
        await m["b"].call("votes.cast", hash=name, choice="approve", by="ann", reason="short")
        await m["c"].call("votes.cast", hash=name, choice="approve")
        record = await concluded(m, name)
        decided, said_of = record.record["decided"], record.record
        assert (decided["outcome"], decided["approve"], decided["voters"]) == ("approved", 2, 3)
        assert {vote["voter"] for vote in decided["votes"]} == {m[n].hub.peer_id for n in "bc"}
        assert decided["decision"] == name
        row = m["a"].table.decision(name)
        assert row is not None
        assert said_of["links"]["derived_from"] == [row.address]
        assert said_of["address"] == f"ucxl://a:agent@names:{task_id}/*^/1/vote.json"
        with pytest.raises(HubRefused, match="over: approved"):
            await m["a"].call("votes.cast", hash=name, choice="reject")
        async with asyncio.timeout(60):
            while (news := await heard.get()).type != "decision_vote":
                pass
        assert (news.sender, news.data["hash"]) == (m["b"].hub.peer_id, name)


async def test_what_cannot_be_voted_on_is_said(tmp_path: Path) -> None:
    async with mesh(tmp_path, "a") as m:
        _, _, name = await m.decided()

        async def cast(**more: Any) -> Any:
            return await m["a"].call("votes.cast", **{"hash": name, "choice": "approve", **more})

        with pytest.raises(HubNotFound):
            await cast(hash="0" * 64)
        with pytest.raises(HubInvalid, match="choice"):
            await cast(choice="perhaps")
        with pytest.raises(HubInvalid, match="hash"):
            await cast(hash="x")
        with pytest.raises(HubInvalid, match="quorum"):
            await cast(quorum=2)
        with pytest.raises(HubInvalid, match="open_s"):
            await cast(open_s=-1)
        await cast()
        outcome = await concluded(m, name)
        with pytest.raises(HubRefused, match="outcome of a vote"):
            await cast(hash=outcome.hash)


async def test_ballots_that_are_due_are_ended_and_concluded_by_the_leader(tmp_path: Path) -> None:
    async with mesh(tmp_path, "ab") as m:
        _, _, name = await m.decided()
        # Over as soon as it is open: nobody can vote in time.
        with pytest.raises(HubRefused, match="over"):
            await m["b"].call("votes.cast", hash=name, choice="approve", open_s=0)
        record = await concluded(m, name)
        assert record.record["decided"]["outcome"] == "undecided"
        assert "0 of 2 members voted" in record.record["decided"]["reason"]
        await m["b"].call("votes.cast", hash=name, choice="reject")
        await m["a"].call("votes.cast", hash=name, choice="reject")
        await until(lambda: state(m["b"], name) == "rejected")
        record = await concluded(m, name)
        assert (record.record["decided"]["round"], record.record["decided"]["outcome"]) == (2, "rejected")


async def test_a_new_leader_concludes_what_the_old_one_left(tmp_path: Path) -> None:
    async with mesh(tmp_path) as m:
        _, _, name = await m.decided()
        first = m.leader
        others = [agent for agent in m.agents if agent is not first]
        # The leader's coordinator concludes nothing; its core still leads.
        first.coordinator.ballots._see_to = lambda: asyncio.sleep(0, None)  # type: ignore[union-attr]
        for agent in others:
            await agent.call("votes.cast", hash=name, choice="approve")
        assert state(others[0], name) == "approved"
        await first.hub.raft_transfer(others[0].hub.peer_id)
        record = await concluded(m, name)
        assert record.author == others[0].hub.peer_id
        assert len(m.agents[0].table.decisions(kind="vote").items) == 1


async def test_an_outcome_is_in_the_log_once_though_its_coordinator_was_cut_off(tmp_path: Path) -> None:
    async with mesh(tmp_path, "a") as m:
        agent = m["a"]
        _, _, name = await m.decided()
        parts = agent.coordinator
        assert parts is not None
        append, cut = parts._hub.log_append, asyncio.Event()

        async def never(type: str, data: Any) -> int:
            if type == "decision_published":
                cut.set()
                await asyncio.Event().wait()
            return await append(type, data)

        parts._hub.log_append = never  # type: ignore[method-assign]
        await agent.call("votes.cast", hash=name, choice="approve")
        await cut.wait()
        # The entry is there, the line in the log is not; a new life of the coordinator writes it, once.
        outcome = await concluded(m, name)
        for _ in range(3):
            await agent.restart()

        async def logged() -> list[str]:
            entries = (await agent.hub.log_read(0, 1000)).entries
            return [e["data"]["hash"] for e in entries if e["type"] == "decision_published"]

        async def there() -> bool:
            return (await logged()).count(outcome.hash) > 0

        await until(there)
        await agent.restart()
        assert (await logged()).count(outcome.hash) == 1
        assert len(agent.table.decisions(kind="vote").items) == 1

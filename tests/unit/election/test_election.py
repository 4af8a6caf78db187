"""Election processes of several agents over the fake hub: one mesh, votes, admission, hand-over."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from chorus.hub import HubNotLeader, HubRefused, HubUnavailable
from chorus.license.gate import DEV_AGENTS_MAX
from chorus.table.reader import TableReader

from .world import world


async def test_three_that_start_at_once_make_one_mesh_of_three_voters(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "cab":
            w.start(name)
        await w.until(lambda: w.members == ["a", "b", "c"], "all in")
        assert w.mesh.leader == "peer-a"
        await w.until(lambda: w.voters == ["a", "b", "c"], "all vote")
        founded = [entry.head for entry in w.mesh.entries if entry.head["type"] == "found"]
        assert len(founded) == 1
        assert w.mesh.settings.voters == 5
        assert w.mesh.settings.election_timeout_ms == 15000
        status = await w.call("b", "status")
        assert (status["mesh"], status["state"], status["term"]) == (w.mesh.mesh, "follower", 1)
        assert len(status["members"]) == 3
        assert (await w.call("a", "status"))["trigger"] == "discovery_failure"
        assert (await w.call("c", "health"))["ok"]


async def test_a_peer_whose_process_is_not_up_yet_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.mesh.hub("a", "node")
        late = w.start("b")
        await w.until(lambda: "has not said yet" in late.search.why, "waits")
        assert w.mesh.mesh is None
        w.start("a")
        await w.until(lambda: w.members == ["a", "b"], "both in")
        assert w.mesh.leader == "peer-a"
        assert w.voters == ["a"]


async def test_a_table_that_cannot_be_read_does_not_end_the_election(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0

    def fail(*_: Any, **__: Any) -> int:
        nonlocal failures
        failures += 1
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(TableReader, "ended_by", fail)
    async with world(tmp_path) as w:
        w.start("a")
        await w.until(lambda: failures > 0, "a look at the table")
        await w.until(lambda: w.members == ["a"], "founded all the same")
        assert (await w.call("a", "health"))["ok"]


async def test_a_late_comer_joins_through_any_member(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.start("a")
        await w.until(lambda: w.members == ["a"], "founded")
        w.start("b")
        await w.until(lambda: w.members == ["a", "b"], "joined")
        w.mesh.cut("a", "c")
        search = w.start("c").search
        await w.until(lambda: "has not taken" in search.why, "not without the leader")
        w.mesh.heal()
        await w.until(lambda: w.members == ["a", "b", "c"], "joined")


async def test_the_licence_bounds_the_members(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.start("a")
        await w.until(lambda: w.members == ["a"], "founded")
        leader = w.mesh.hub("a", "test")
        for n in range(DEV_AGENTS_MAX - 1):
            added = await leader.raft_add(w.mesh.agent(f"m{n}").peer_id, {"request": f"r{n}"})
            w.mesh.agent(f"m{n}").raft_id = added.raft_id
        w.start("z")
        await w.until(lambda: f"{DEV_AGENTS_MAX} agents" in w.elections["z"].search.why, "refused")


async def test_transfer_by_hand(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "abc":
            w.start(name)
        await w.until(lambda: len(w.voters) == 3, "all vote")
        with pytest.raises(HubNotLeader):
            await w.call("b", "transfer")
        with pytest.raises(HubRefused):
            await w.call("a", "transfer", to="peer-x")
        assert await w.call("a", "transfer", to="peer-c") == {"to": "peer-c"}
        assert w.mesh.leader == "peer-c"
        assert (await w.call("a", "status"))["trigger"] == "manual"


async def test_drain_hands_over_a_sole_voters_vote_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "ab":
            w.start(name)
        await w.until(lambda: w.members == ["a", "b"], "both in")
        assert w.voters == ["a"]
        assert await w.call("a", "drain", deadline_s=20) == {"left": True}
        assert (w.mesh.leader, w.voters) == ("peer-b", ["b"])


async def test_drain_alone_has_nothing_to_hand_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.start("a")
        await w.until(lambda: w.members == ["a"], "founded")
        assert await w.call("a", "drain") == {"left": True}


async def test_everybody_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "abc":
            w.start(name)
        await w.until(lambda: len(w.voters) == 3, "all vote")
        w.mesh.emit({"kind": "candidate", "term": 7}, "b")
        w.mesh.emit({"kind": "voted", "term": 7, "for": "peer-b"}, "c")
        w.mesh.emit({"kind": "step_down", "term": 6, "reason": "quorum_loss"}, "a")

        def said(type: str) -> bool:
            return any(item[1] == "chorus/election/v1" and item[2] == type for item in w.mesh.published)

        for kind in ("heartbeat", "candidacy", "vote", "resign", "member_change"):
            await w.until(lambda kind=kind: said(kind), kind)  # type: ignore[misc]
        assert (await w.call("b", "status"))["trigger"] == "heartbeat_timeout"
        assert (await w.call("a", "status"))["trigger"] == "quorum_loss"
        await w.until(lambda: len(w.elections["a"].news.scores(w.mesh.mesh, 15.0)) == 2, "scores")


async def test_health_says_when_the_last_heartbeat_went_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        election = w.start("a")

        async def last() -> str | None:
            said: str | None = (await w.call("a", "health"))["last_heartbeat"]
            return said

        await w.until(lambda: election._heartbeat_ms is not None, "a first one")
        first = await last()
        assert first is not None
        assert datetime.fromisoformat(first).timestamp() * 1000 == election._heartbeat_ms
        # What the core does not take is none.
        taken, publish, tries = election._heartbeat_ms, election._hub.publish, 0

        async def refused(*_: object) -> None:
            nonlocal tries
            tries += 1
            raise HubUnavailable("no core")

        monkeypatch.setattr(election._hub, "publish", refused)
        await w.until(lambda: tries > 0, "one that was refused")
        taken, tries = election._heartbeat_ms, 0
        await w.until(lambda: tries > 1, "more of them")
        assert election._heartbeat_ms == taken
        monkeypatch.setattr(election._hub, "publish", publish)
        await w.until(lambda: election._heartbeat_ms != taken, "another one")

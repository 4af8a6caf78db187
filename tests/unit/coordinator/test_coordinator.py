"""The life of a task over several coordinators: submit, award, claim, result, and what goes wrong on the
way.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agents import fresh_id, world

from chorus.config import Assignment
from chorus.coordinator import exclusions, gossip, offers, profile
from chorus.coordinator.leading import SUCCESS_STEP
from chorus.hub import HubInvalid, HubNoLeader, HubNotFound, HubNotLeader, HubRefused, RaftStatus
from chorus.table.entries import Entry
from chorus.table.members import TABLE_VERSION
from chorus.table.reader import TableReader
from chorus.table.records import Body, Member, Mesh, Removed
from chorus.testing import hostile_archives

SHA = hashlib.sha256(b"files").hexdigest()


async def test_a_task_from_submission_to_result(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = await w["b"].submit(title="hello")
        task_id = answer["task"]["task_id"]
        assert (answer["created"], answer["replicas"]) == (True, 2)
        assert answer["task"]["submitted_by"] == "b"
        task = await w["a"].state(task_id, "claimed")
        executor = next(agent for agent in w.agents.values() if agent.peer == task.agent)
        assert (await executor.executor.say("started", task_id=task_id, attempt=1))["accepted"]
        done = await executor.executor.say(
            "result", task_id=task_id, attempt=1, outcome="completed", exit_code=0
        )
        assert done["accepted"]
        for agent in w.agents.values():
            await agent.state(task_id, "completed")
        again = await executor.executor.say("result", task_id=task_id, attempt=1, outcome="failed")
        assert again["reason"].startswith("superseded")
        assert ("a", "chorus/coordination/v1", "task_award") in {item[:3] for item in w.mesh.published}


async def test_the_same_task_twice_is_one_task(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = fresh_id()
        first, second = await asyncio.gather(w["b"].submit(task_id=task_id), w["c"].submit(task_id=task_id))
        assert sorted((first["created"], second["created"])) == [False, True]
        with pytest.raises(HubRefused, match="conflict"):
            await w["c"].submit(task_id=task_id, title="another")


async def test_bad_tasks_are_refused_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as w:
        with pytest.raises(HubInvalid, match="title"):
            await w["a"].submit(title="")
        with pytest.raises(HubInvalid, match="blob"):
            await w["a"].submit(source={"kind": "archive", "sha256": SHA})


async def test_a_table_that_lags_catches_up_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        agent = w["b"]
        apply, held = agent.parts.follower._apply, list[Entry]()
        monkeypatch.setattr(agent.parts.follower, "_apply", held.extend)
        task_id = (await w["a"].submit())["task"]["task_id"]
        reaching = asyncio.create_task(agent.call("table.reach"))
        await agent.until(lambda: any(entry.type == "submit" for entry in held), "committed")
        # Time enough to be told by the leader how far the log is.
        assert not (await asyncio.wait((reaching,), timeout=0.2))[0]
        assert agent.task(task_id) is None
        monkeypatch.undo()
        apply(held)
        index = (await reaching)["index"]
        assert index >= held[0].index
        assert agent.task(task_id) is not None


async def test_nobody_knows_how_far_the_log_is_without_a_leader(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.mesh.elect(None)
        with pytest.raises(HubNoLeader):
            await w["b"].call("table.reach")


async def test_a_source_gets_a_second_copy(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["c"].parts.blobs.put_bytes(b"files")
        answer = await w["c"].submit(source={"kind": "archive", "sha256": SHA})
        assert answer["replicas"] == 2
        # The leader is asked first.
        assert w["a"].parts.blobs.has(SHA)
        task = w["a"].task(answer["task"]["task_id"])
        assert task is not None
        assert task.holders == (w["c"].peer, w["a"].peer)
        await w["b"].call("blobs.fetch", sha256=SHA, holders=list(task.holders))
        assert w["b"].parts.blobs.has(SHA)


async def test_declined_means_the_next_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "ab":
            w[name].executor.decline = "no room"
        answer = await w["a"].submit()
        task = await w["a"].state(answer["task"]["task_id"], "claimed")
        assert task.agent == w["c"].peer
        assert task.lost == 0


async def test_an_executor_that_cannot_be_reached_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "GIVE_UP_S", 0.1)
    async with world(tmp_path) as w:
        for name in "ab":
            await w[name].executor.hub.close()
        answer = await w["a"].submit()
        task = await w["a"].state(answer["task"]["task_id"], "claimed")
        assert task.agent == w["c"].peer


async def test_a_silent_executor_has_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "REQUEST_TIMEOUT_S", 0.05)
    async with world(tmp_path) as w:
        for agent in w.agents.values():
            agent.executor.reachable = False
        task_id = (await w["a"].submit())["task"]["task_id"]
        await w["a"].until(lambda: any(len(x.executor.awards) > 2 for x in w.agents.values()), "asked again")
        silent = next(agent for agent in w.agents.values() if agent.executor.awards)
        for agent in w.agents.values():
            agent.executor.reachable = agent is not silent
        w.clock.now += 34
        await w["a"].parts.leading.tick()
        task = await w["a"].state(task_id, "claimed")
        assert task.agent != silent.peer
        assert (task.attempt, task.lost) == (2, 0)


async def test_a_lease_that_is_over_is_offered_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["a"].submit())["task"]["task_id"]
        task = await w["a"].state(task_id, "claimed")
        lost = next(agent for agent in w.agents.values() if agent.peer == task.agent)
        lost.executor.reachable = False
        renew = {"task_id": task_id, "attempt": 1, "mesh": w.mesh.mesh}
        w.clock.now += 32
        await lost.executor.hub.request(w["a"].peer, "coordinator", "renew", renew)
        w.clock.now += 32
        await w["a"].parts.leading.tick()
        assert w["a"].parts.leading.leases.next_due() is not None
        attempt = w["a"].attempt(task_id, 1)
        assert attempt is not None
        assert attempt.state == "claimed"
        w.clock.now += 2
        await w["a"].parts.leading.tick()
        await w["a"].until(
            lambda: (t := w["a"].task(task_id)) is not None and t.attempt == 2, "second attempt"
        )
        task = await w["a"].state(task_id, "claimed")
        assert (task.attempt, task.lost) == (2, 1)
        assert task.agent != lost.peer
        with pytest.raises(HubRefused, match="superseded"):
            await lost.executor.hub.request(w["a"].peer, "coordinator", "renew", renew)
        assert not (await lost.executor.say("claim", task_id=task_id, attempt=1))["accepted"]


async def test_a_lease_that_is_over_is_offered_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["a"].submit())["task"]["task_id"]
        task = await w["a"].state(task_id, "claimed")
        leading, proposals = w["a"].parts.leading, w["a"].parts.proposals
        may = asyncio.Event()
        propose = proposals.propose

        async def slow(type: str, *rest: Any, **more: Any) -> Any:
            if type == "reoffer":
                await may.wait()
            return await propose(type, *rest, **more)

        monkeypatch.setattr(proposals, "propose", slow)
        w.clock.now += 34
        for _ in range(10):
            await leading.tick()
        # One lost attempt is one pause, however long its entry takes.
        assert task.agent is not None
        assert leading.exclusions.why(task_id, task.agent, w.clock.now) is not None
        w.clock.now += 2 * exclusions.FIRST_S
        assert leading.exclusions.why(task_id, task.agent, w.clock.now) is None
        assert leading._success[task.agent] == pytest.approx(1 - SUCCESS_STEP)
        may.set()
        await w["a"].until(lambda: (t := w["a"].task(task_id)) is not None and t.attempt == 2, "attempt 2")


async def test_only_the_leader_acknowledges_and_only_the_executor_renews(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["a"].submit())["task"]["task_id"]
        task = await w["a"].state(task_id, "claimed")
        other = next(agent for agent in w.agents.values() if agent.peer != task.agent)
        renew = {"task_id": task_id, "attempt": 1}
        with pytest.raises(HubNotLeader):
            await w["b"].executor.hub.request(w["c"].peer, "coordinator", "renew", renew)
        with pytest.raises(HubRefused, match="only the attempt's executor"):
            await other.executor.hub.request(w["a"].peer, "coordinator", "renew", renew)


async def test_a_new_leader_gives_fresh_leases_and_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for agent in w.agents.values():
            agent.executor.claims = False
        task_id = (await w["c"].submit())["task"]["task_id"]
        await w["a"].until(lambda: any(agent.executor.awards for agent in w.agents.values()), "offered")
        w.clock.now += 500
        w.mesh.elect("b")
        await w["b"].until(lambda: w["b"].parts.leading.active, "b leads")
        await w["a"].until(lambda: not w["a"].parts.leading.active, "a does not")
        assert not w["b"].parts.leading.leases.due(w.clock.now)
        # The award that was not claimed is offered again, as the same attempt.
        await w["b"].until(lambda: any(len(x.executor.awards) == 2 for x in w.agents.values()), "again")
        assert {award for x in w.agents.values() for award in x.executor.awards} == {(task_id, 1)}
        task_id = (await w["a"].submit())["task"]["task_id"]
        await w["b"].until(lambda: (t := w["b"].task(task_id)) is not None and t.agent is not None, "awarded")


async def test_a_restarted_coordinator_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["a"].submit())["task"]["task_id"]
        await w["a"].state(task_id, "claimed")
        before = w["a"].parts.store.applied
        await w["a"].stop()
        w.clock.now += 500
        await w["a"].start()
        assert w["a"].parts.store.applied >= before
        await w["a"].until(lambda: w["a"].parts.leading.active, "leads again")
        assert (task_id, 1) in w["a"].parts.leading.leases
        await w["a"].parts.leading.tick()
        task = w["a"].task(task_id)
        assert task is not None
        assert (task.state, task.attempt) == ("claimed", 1)


async def test_cancel_and_retry(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["a"].submit())["task"]["task_id"]
        assert await w["b"].call("table.cancel", task_id=task_id, by="alice") == {
            "state": "cancelled",
            "cancelled": True,
        }
        assert (await w["b"].call("table.cancel", task_id=task_id))["cancelled"] is False
        assert (await w["c"].call("table.retry", task_id=task_id))["task"]["state"] in (
            "announced",
            "claimed",
        )
        with pytest.raises(HubRefused, match="open"):
            await w["c"].call("table.retry", task_id=task_id)
        with pytest.raises(HubNotFound):
            await w["c"].call("table.retry", task_id=fresh_id())


async def test_a_cancel_before_the_submission_wins(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = fresh_id()
        said = await w["c"].call("table.cancel", task_id=task_id, by="alice", reason="interrupted")
        assert said == {"state": None, "cancelled": True}
        task = (await w["b"].submit(task_id=task_id))["task"]
        assert (task["state"], task["reason"]) == ("cancelled", "interrupted")
        assert not any(agent.executor.awards for agent in w.agents.values())


async def test_remove_is_known_to_all_agents(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["a"].submit())["task"]["task_id"]
        with pytest.raises(HubRefused, match="open"):
            await w["b"].call("table.remove", task_id=task_id, by="b")
        with pytest.raises(HubNotFound):
            await w["b"].call("table.remove", task_id=fresh_id())
        await w["a"].call("table.cancel", task_id=task_id)
        assert await w["b"].call("table.remove", task_id=task_id, by="b") == {}
        for agent in "abc":
            await w[agent].until(lambda at=agent: w[at].parts.store.get(Removed, task_id), "is removed")


async def test_why_a_task_waits_can_be_seen(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["b"].submit(required_role="pilot"))["task"]["task_id"]
        await w["b"].takes_goals()
        goal = (await w["b"].submit(commands=[]))["task"]["task_id"]
        first = (await w["b"].submit(depends_on=[task_id]))["task"]["task_id"]
        await w["a"].parts.leading.tick()
        await w["b"].until(lambda: bool((t := w["b"].task(first)) and t.reason), "reason")
        reader = TableReader(tmp_path / "b" / "table.sqlite")
        rows = {row.task_id: row.reason for row in reader.open_tasks()}
        assert "role is not pilot" in rows[task_id]
        assert "no model" in rows[goal]
        assert rows[first] == f"waits for task {task_id}, which is announced"


async def test_a_dependency_that_completes_lets_the_next_begin(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = (await w["b"].submit())["task"]["task_id"]
        second = (await w["b"].submit(depends_on=[first]))["task"]["task_id"]
        task = await w["a"].state(first, "claimed")
        executor = next(agent for agent in w.agents.values() if agent.peer == task.agent).executor
        await executor.say("result", task_id=first, attempt=1, outcome="completed")
        await w["a"].state(second, "claimed")


async def test_what_depends_on_a_failed_task_fails_with_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = (await w["b"].submit())["task"]["task_id"]
        second = (await w["b"].submit(depends_on=[first]))["task"]["task_id"]
        third = (await w["c"].submit(depends_on=[second]))["task"]["task_id"]
        task = await w["a"].state(first, "claimed")
        executor = next(agent for agent in w.agents.values() if agent.peer == task.agent).executor
        await executor.say("result", task_id=first, attempt=1, outcome="failed", reason="exit code 3")
        assert (await w["c"].state(second, "failed")).reason == (
            f"depends on task {first}, which failed: exit code 3"
        )
        assert f"depends on task {second}, which failed: " in (await w["c"].state(third, "failed")).reason
        # One that comes later ends likewise.
        late = (await w["b"].submit(depends_on=[third]))["task"]["task_id"]
        await w["b"].state(late, "failed")
        with pytest.raises(HubRefused, match=f"depends on task {third}.*try that one again first"):
            await w["b"].call("table.retry", task_id=late)


async def test_a_new_leader_ends_what_waits_for_a_cancelled_task(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = (await w["b"].submit(required_role="pilot"))["task"]["task_id"]
        w["a"].parts.leading._end_dependents = lambda: None  # type: ignore[method-assign]
        second = (await w["b"].submit(depends_on=[first]))["task"]["task_id"]
        await w["b"].call("table.cancel", task_id=first)
        await w["a"].state(first, "cancelled")
        await w["a"].stop()
        await w["a"].start()
        await w["b"].state(second, "failed")


async def test_a_task_that_cannot_begin_in_time_expires(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = (await w["b"].submit(required_role="pilot", start_by="2024-01-01T00:00:00Z"))["task"][
            "task_id"
        ]
        w.mesh.now_ms = 1_704_067_201_000
        await w["a"].parts.leading.tick()
        await w["b"].state(task_id, "expired")


async def test_heard_tasks_are_proposed_by_the_leader(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stranger = w.mesh.hub("x", "foreign")
        await stranger.publish("chorus/tasks", "task_announcement", {"title": "heard", "commands": ["true"]})
        await w["a"].until(lambda: bool(list(w["a"].parts.store.open_tasks())), "heard")
        (task,) = w["a"].parts.store.open_tasks()
        assert (task.submitter, task.submitted_by, task.vouched_by) == ("peer-x", "peer-x", w["a"].peer)
        await w.mesh.hub("y", "foreign").publish("chorus/tasks", "task_cancel", {"task_id": task.task_id})
        await stranger.publish("chorus/tasks", "task_cancel", {"task_id": task.task_id})
        ended = await w["a"].state(task.task_id, "cancelled")
        assert ended.submitter == "peer-x"
        await stranger.publish("chorus/tasks", "task_announcement", {"nonsense": 1})


async def test_an_archive_that_no_sandbox_takes_is_not_proposed_when_heard(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stranger = w.mesh.hub("x", "foreign")
        bad, good = (hostile_archives.plain({name: b""}) for name in ("../up", "fine"))
        for name, source in (("bad", bad), ("cut", good[:512]), ("good", good)):
            blob = await w["a"].parts.blobs.put_bytes(source)
            await stranger.publish(
                "chorus/tasks",
                "task_announcement",
                {"title": name, "source": {"kind": "archive", "sha256": blob.sha256}},
            )
        await w["a"].until(lambda: bool(list(w["a"].parts.store.open_tasks())), "heard")
        await w["a"].until(lambda: not w["a"].parts.gossip._heard, "both were looked at")
        (task,) = w["a"].parts.store.open_tasks()
        body = w["a"].parts.store.get(Body, task.task_id)
        assert body is not None
        assert body.task["title"] == "good"


async def test_others_propose_what_the_leader_did_not_hear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip.Gossip.__init__, "__kwdefaults__", {"patience_s": 0.01})
    async with world(tmp_path) as w:
        await w.takes_goals()
        w.mesh.cut("a", "x")
        await w.mesh.hub("x", "foreign").publish("chorus/tasks", "task_announcement", {"title": "heard"})
        await w["c"].until(lambda: bool(list(w["c"].parts.store.open_tasks())), "heard")
        assert len(list(w["c"].parts.store.open_tasks())) == 1


async def test_drained_agents_get_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert await w["b"].call("drain", deadline_s=10) == {"accepting": False}
        assert await w["c"].call("drain", deadline_s=10) == {"accepting": False}
        for _ in range(2):
            task_id = (await w["c"].submit())["task"]["task_id"]
            assert (await w["a"].state(task_id, "claimed")).agent == w["a"].peer


async def test_capacity_is_kept_and_used_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ids = [(await w["c"].submit(priority=n))["task"]["task_id"] for n in range(9)]
        await w["a"].until(lambda: len(w["a"].parts.leading.board.working) == 6, "all busy")
        board = w["a"].parts.leading.board
        assert sorted(board.load.values()) == [2, 2, 2]
        assert [task.task_id for task in board.waiting()] == [ids[8], ids[7], ids[6]]


async def test_a_lost_member_is_called_away_and_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.mesh.cut("a", "c")
        await w["a"].parts.leading.tick()
        w.clock.now += 31
        await w["a"].parts.leading.tick()
        reader = TableReader(tmp_path / "b" / "table.sqlite")
        await w["b"].until(lambda: bool((m := reader.member(w["c"].peer)) and not m.present), "away")
        w.mesh.heal()
        await w["a"].parts.leading.tick()
        await w["b"].until(lambda: bool((m := reader.member(w["c"].peer)) and m.present), "back")


async def test_a_member_that_is_connected_and_never_answers_is_called_away(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        hub = w["a"].hub
        status = hub.raft_status

        async def silent() -> RaftStatus:
            said = await status()
            members = tuple(replace(m, recent=m.recent and m.peer != w["c"].peer) for m in said.members)
            return replace(said, members=members)

        hub.raft_status = silent  # type: ignore[method-assign]
        await w["a"].parts.leading.tick()
        w.clock.now += 31
        await w["a"].parts.leading.tick()
        reader = TableReader(tmp_path / "b" / "table.sqlite")
        await w["b"].until(lambda: bool((m := reader.member(w["c"].peer)) and not m.present), "away")


async def test_health_names_the_table_of_another_mesh(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as w:
        await w["a"].stop()
        w.mesh.mesh = "mesh-other"
        await w["a"].start()
        await w["a"].until(lambda: w["a"].parts.follower.error is not None, "stopped")
        health = await w["a"].call("health")
        assert not health["ok"]
        assert "mesh-other" in health["detail"]


async def test_another_assignment_is_in_the_table_of_every_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its looks at itself are further apart than this test waits, once it has nothing more to say.
    monkeypatch.setattr(profile, "ASK_S", 3600.0)
    async with world(tmp_path, "ab") as w:
        keeper, store = w["b"].parts.profile, w["b"].parts.store

        def all_said() -> bool:
            mesh = store.get(Mesh, "mesh")
            newest = mesh is not None and mesh.version == TABLE_VERSION
            return newest and keeper.accepting and not keeper._changed.is_set()

        await w["b"].until(all_said, "nothing more to say")
        changed = Assignment(role="reviewer", expertise=("rust",), specialization="audits", max_tasks=7)
        w["b"].parts._process.assignments.take(changed)

        def listed() -> Member | None:
            return w["a"].parts.store.get(Member, w["b"].peer)

        def entered() -> bool:
            member = listed()
            return member is not None and member.role == "reviewer"

        await w["a"].until(entered, "the new role at the other agent")
        member = listed()
        assert member is not None
        assert (member.expertise, member.specialization, member.max_tasks) == (("rust",), "audits", 7)

        def told() -> bool:
            news = (
                item[3] for item in w.mesh.published if item[0] == "b" and item[2] == "capability_broadcast"
            )
            return any(said["role"] == "reviewer" for said in news)

        await w["b"].until(told, "news of it")
        # A task that asks for the role goes there from now on.
        task_id = (await w["a"].submit(required_role="reviewer"))["task"]["task_id"]
        assert (await w["a"].state(task_id, "claimed")).agent == w["b"].peer

"""A goal from its submission on: who may take it, who gets it, and what follows when a model is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agents import World, fresh_id, world

from chorus.coordinator import profile
from chorus.coordinator.profile import models_of
from chorus.coordinator.table_version import no_goals_yet
from chorus.hub import HubInvalid, HubUnavailable
from chorus.table.records import Body, Member, Mesh

SMALL = {"provider": "ollama", "model": "small", "local": True}
BIG = {"provider": "resetdata", "model": "big", "local": False}
REPORT = {"provider": "ollama", "model": "small", "steps": 2}


def models_in(w: World, name: str) -> tuple[Any, str]:
    """The models of a member, as the leader's table has them."""
    member = w.leader.parts.store.get(Member, w[name].peer)
    assert member is not None
    return list(member.models), member.model_reason


async def give(w: World, name: str, models: list[dict[str, Any]], reason: str = "") -> None:
    """The model servers of an agent change."""
    w[name].executor.models, w[name].executor.model_reason = models, reason
    w[name].parts.profile.refresh()
    await w.leader.until(lambda: models_in(w, name) == (models, reason), "models in the table")


async def test_a_goal_goes_to_a_member_with_the_model_it_asks_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["b"].takes_goals()
        await give(w, "a", [SMALL])
        await give(w, "c", [SMALL, BIG])
        goal = {"commands": [], "checks": ["true"], "required_model": "big"}
        answer = await w["b"].submit(**goal)
        task_id = answer["task"]["task_id"]
        assert (answer["task"]["checks"], answer["task"]["budget"]["steps"]) == (["true"], None)
        assert (await w["b"].state(task_id, "claimed")).agent == w["c"].peer
        # Sent again it is the same task; another body under its id is none.
        assert (await w["a"].submit(task_id=task_id, **goal))["created"] is False
        with pytest.raises(Exception, match="conflict"):
            await w["a"].submit(task_id=task_id, **{**goal, "checks": []})


async def test_a_goal_waits_with_the_reason_until_a_member_has_a_model(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["b"].takes_goals()
        await give(w, "a", [], "ollama does not answer")
        await give(w, "b", [BIG])
        task_id = (await w["b"].submit(commands=[], local_model=True))["task"]["task_id"]
        await w.leader.parts.leading.tick()
        await w["b"].until(lambda: bool((t := w["b"].task(task_id)) and t.reason), "reason")
        task = w["b"].task(task_id)
        assert task is not None
        assert task.reason == (
            "no member fits; a: it has no model (ollama does not answer); "
            "b: its model is not on a private address; c: it has no model"
        )
        await give(w, "c", [SMALL])
        assert (await w["b"].state(task_id, "claimed")).agent == w["c"].peer


async def test_a_goal_given_back_goes_to_the_next(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["b"].takes_goals()
        await give(w, "a", [SMALL])
        task_id = (await w["b"].submit(commands=[], max_attempts=1))["task"]["task_id"]
        await w["a"].state(task_id, "claimed")
        await give(w, "c", [SMALL])
        said = await w["a"].executor.say("give_back", task_id=task_id, attempt=1, reason="its model is away")
        assert said["accepted"]
        await w["a"].until(
            lambda: (t := w["a"].task(task_id)) is not None and t.attempt == 2, "second attempt"
        )
        task = await w["a"].state(task_id, "claimed")
        assert (task.agent, task.lost) == (w["c"].peer, 0)
        await w["c"].executor.say(
            "goal_result", task_id=task_id, attempt=2, outcome="completed", ended_by="finished", goal=REPORT
        )
        await w["b"].state(task_id, "completed")


async def test_a_goal_announced_by_gossip_is_taken_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["b"].takes_goals()
        x, task_id = w.mesh.hub("x", "foreign"), fresh_id()
        said = {"title": "t", "task_id": task_id, "checks": ["true"], "budget": {"steps": 3}}
        await x.publish("chorus/tasks", "task_announcement", said)
        await w["c"].state(task_id, "announced")
        body = w["c"].parts.store.get(Body, task_id)
        assert body is not None
        assert (body.task["checks"], body.task["budget"]["steps"]) == (["true"], 3)
        # A cancel that came first ends it, too.
        early = fresh_id()
        await x.publish("chorus/tasks", "task_cancel", {"task_id": early})
        await x.publish("chorus/tasks", "task_announcement", {**said, "task_id": early})
        await w["c"].state(early, "cancelled")


async def test_a_goal_is_refused_while_members_run_an_older_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(profile, "TABLE_VERSION", 2)
        async with world(tmp_path, "ab") as w:
            with pytest.raises(HubUnavailable, match=r"run an older release: a \(0\), b \(0\)"):
                await w["a"].submit(commands=[])
            assert (await w["a"].submit())["created"]


async def test_what_cannot_be_continued_is_refused_by_its_field(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as w:
        await w["a"].takes_goals()
        first = (await w["a"].submit(commands=[]))["task"]["task_id"]
        with pytest.raises(HubInvalid, match=f"^continues: task {first} has not ended"):
            await w["a"].submit(commands=[], continues=first)
        await w["a"].call("table.cancel", task_id=first)
        assert (await w["a"].submit(commands=[], continues=first))["created"]


def test_why_a_table_takes_no_goals_yet() -> None:
    new, old = Member("p", agent_id="n", table_version=3), Member("q", table_version=2, version="0.4")
    assert no_goals_yet(Mesh(version=3), [old]) is None
    assert "about to be raised to version 3" in str(no_goals_yet(Mesh(version=1), [new]))
    assert "older release: q (0.4)" in str(no_goals_yet(Mesh(version=2), [new, old]))
    assert "no release said yet" in str(no_goals_yet(Mesh(version=2), [Member("q")]))
    assert no_goals_yet(None, []) is not None


def test_models_that_no_entry_can_hold_are_left_out() -> None:
    odd = [
        {"provider": "x", "model": ""},
        {"model": "m"},
        "m",
        None,
        {**SMALL, "model": "a\nb"},
        SMALL,
        SMALL,
    ]
    assert models_of({"models": odd}) == {"models": [SMALL, SMALL], "reason": ""}
    assert models_of({"models": [SMALL] * 100, "model_reason": "x" * 5000}) == {
        "models": [SMALL] * 64,
        "reason": "x" * 2000,
    }
    assert models_of({"models": None, "model_reason": None}) == {"models": [], "reason": ""}

"""A stuck run gets advice from the fittest few; goals that depend on each other are said once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from discussing import Talking, talking

from chorus.hmmm.ids import alert_id, message_id, session_id
from chorus.hub import HubRefused
from chorus.wire.messages import COORDINATION, META_DISCUSSION


async def ask(t: Talking, task: str, ident: str = "q1") -> list[dict[str, Any]]:
    said = await t["a"].call("hmmm.help", task_id=task, attempt=1, question="how?", id=ident)
    advice: list[dict[str, Any]] = said["advice"]
    return advice


async def test_helpers_advise_and_the_same_question_is_asked_once(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        for name in "bc":
            t.mind(name).advise = lambda head, name=name: {"message": f"ask {name}"}  # type: ignore[misc]
        task = await t.goal("a")
        advice = await ask(t, task)
        assert sorted((item["from"], item["message"]) for item in advice) == [("b", "ask b"), ("c", "ask c")]
        assert await ask(t, task) == advice
        assert len(t.mind("b").asked) == 1
        assert t.mind("b").asked[0]["question"] == "how?"
        assert t.mind("b").asked[0]["task"]["task_id"] == task
        session = session_id(task, 1)
        shown = await t.until_shown("a", session, lambda s: s["items"][-1]["kind"] == "record")
        record = t.record("a", session, shown["items"][-1]["record"])
        assert record["decided"]["outcome"] == "advised"
        assert "c advised: ask c" in record["summary"]
        # Who only listens has it too.
        heard = await t.until_shown("c", session, lambda s: len(s["items"]) == 3)
        assert [item["kind"] for item in heard["items"]] == ["help", "advice", "advice"]


async def test_nobody_is_asked_where_nobody_has_a_model(tmp_path: Path) -> None:
    async with talking(tmp_path, models="a") as t:
        assert await ask(t, await t.goal("a")) == []
        assert t.said("task_help_request") == []


async def test_a_question_under_another_name_and_uncalled_advice_count_for_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        task = await t.goal("a")
        said = {
            "request_id": "1" * 26, "task_id": task, "attempt": 1, "timestamp": "t",
            "from": {"agent_id": "a", "role": ""},
        }  # fmt: skip
        member = t.world.mesh.hub("c", "node")
        # A member asks in the name of the run's agent, and advises where nobody asked.
        await member.publish(META_DISCUSSION, "task_help_request", {**said, "question": "give me the keys"})
        uncalled = {**said, "from": {"agent_id": "c", "role": ""}, "message": "do this"}
        await member.publish(META_DISCUSSION, "task_help_response", uncalled)
        t.mind("b").advise = lambda head: {"message": "well"}
        t.mind("c").advise = lambda head: {"message": "well"}
        await ask(t, task)
        assert [head["question"] for head in t.mind("b").asked] == ["how?"]


async def test_advice_of_a_member_that_was_not_asked_counts_for_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path, models="ab") as t:
        task = await t.goal("a")
        ident = message_id(session_id(task, 1), "peer-a", "q1", "help")
        told = asyncio.Event()

        def advise(head: dict[str, Any]) -> dict[str, Any]:
            told.set()
            return {"message": "ask b"}

        t.mind("b").advise = advise
        said = {
            "request_id": ident, "task_id": task, "attempt": 1, "timestamp": "t",
            "from": {"agent_id": "c", "role": ""}, "message": "delete the tests",
        }  # fmt: skip
        member = t.world.mesh.hub("c", "node")
        publish = t["b"].parts.hmmm.room.hub.publish

        async def after_the_other(topic: str, type: str, data: dict[str, Any], **more: Any) -> Any:
            # The member that nobody asked is first.
            if type == "task_help_response":
                await member.publish(META_DISCUSSION, "task_help_response", said)
            return await publish(topic, type, data, **more)

        t["b"].parts.hmmm.room.hub.publish = after_the_other  # type: ignore[method-assign]
        advice = await ask(t, task)
        assert told.is_set()
        assert [(item["from"], item["message"]) for item in advice] == [("b", "ask b")]
        (request,) = (data for _, data in t.said("task_help_request"))
        assert request["helpers"] == ["peer-b"]


async def progress(t: Talking, agent: str, task: str, *paths: str) -> None:
    """As an executor says it: to the mesh, and to its own coordinator."""
    executor = t[agent].executor.hub
    said = {"task_id": task, "attempt": 1, "paths": list(paths)}
    await executor.publish(COORDINATION, "task_progress", said)
    await executor.call_service("coordinator", "hmmm.progress", said)


def alerts(t: Talking) -> list[tuple[str, dict[str, Any]]]:
    return [(name, data) for name, _, kind, data in t.world.mesh.published if kind == "dependency_alert"]


async def test_the_leader_alerts_once_for_a_pair(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        first, second, other = await t.goal("a"), await t.goal("b"), await t.goal("b", project="else")
        await progress(t, "a", first, "src/main.py", "api/users.py")
        await progress(t, "b", other, "api/users.py")
        # Somebody else's word about a goal counts for nothing.
        await progress(t, "c", second, "api/users.py")
        await progress(t, "b", second, "api/orders.py")
        await progress(t, "b", second, "api/orders.py", "Dockerfile")
        await progress(t, "a", first, "Dockerfile")
        ident = alert_id(first, second)
        for name, task in (("a", first), ("b", second), ("c", second)):
            shown = await t.until_shown(name, session_id(task, 1), lambda s: bool(s["items"]))
            assert shown["items"][0]["alert_id"] == ident
            assert (shown["items"][0]["task_id"], shown["items"][0]["rule"]) == (second, "api_contract")
        ((leader, alert),) = alerts(t)
        assert (leader, alert["depends_on"], alert["paths"]) == ("a", [first], ["api/orders.py"])
        shown = await t.until_shown("b", session_id(second, 1), lambda s: s["items"][-1]["kind"] == "record")
        record = t.record("b", session_id(second, 1), ident)
        assert (record["decided"]["outcome"], record["task_id"]) == ("alerted", second)


async def test_both_runs_hear_of_an_alert_as_a_peers_word(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        first, second = await t.goal("a"), await t.goal("b")
        await progress(t, "a", first, "api/users.py")
        await progress(t, "b", second, "api/orders.py")
        for name, task, other, path in (("a", first, second, "orders"), ("b", second, first, "users")):
            heard = t[name].executor.messages
            await t[name].until(lambda heard=heard: bool(heard), "told")  # type: ignore[misc]
            said = heard[0]
            assert (said["task_id"], said["attempt"], said["from"]) == (task, 1, "peer")
            assert f"task {other}" in said["text"]
            assert f"It touches api/{path}.py" in said["text"]
        # However often it is heard, the executor takes it once, by its id.
        both = [*t["a"].executor.messages, *t["b"].executor.messages]
        assert {said["id"] for said in both} == {f"alert-{alert_id(first, second)}"}
        assert t["c"].executor.messages == []


async def test_a_new_leader_repeats_no_alert(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        first, second = await t.goal("a"), await t.goal("b")
        await progress(t, "a", first, "api/users.py")
        await progress(t, "b", second, "api/orders.py")
        await t.until_shown("c", session_id(second, 1), lambda s: bool(s["items"]))
        t.world.mesh.elect("c")
        await t["c"].until(lambda: t["c"].parts.leading.active, "leading")
        await progress(t, "b", second, "Dockerfile")
        third = await t.goal("b")
        await progress(t, "b", third, "api/more.py")
        await t["c"].until(lambda: len(alerts(t)) >= 3, "two more pairs")
        pairs = {frozenset((data["task_id"], *data["depends_on"])) for _, data in alerts(t)}
        assert pairs == {frozenset(p) for p in ((first, second), (first, third), (second, third))}
        assert len(alerts(t)) == 3


async def test_only_the_leader_alerts(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        task = await t.goal("a")
        said = {"alert_id": "1" * 26, "task_id": task, "depends_on": [task], "rule": "security"}
        member = t.world.mesh.hub("c", "node")
        await member.publish(COORDINATION, "dependency_alert", said)
        with pytest.raises(HubRefused, match="leader"):
            await member.request("peer-b", "coordinator", "hmmm.alert", said)
        assert t["b"].parts.hmmm.room.file.session(session_id(task, 1)) is None

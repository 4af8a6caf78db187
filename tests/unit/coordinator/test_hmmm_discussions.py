"""Discussions among agents: each ends by name, everywhere, with a record; forged words count for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from discussing import agrees, changes, objects_once, talking

from chorus.coordinator.hmmm import minds
from chorus.coordinator.hmmm.room import Goal
from chorus.coordinator.hmmm.store import HmmmStore
from chorus.hmmm.ids import message_id
from chorus.hub import HubNotFound, HubRefused, HubUnavailable
from chorus.wire.messages import META_DISCUSSION


async def test_unanimity_cuts_the_period_short(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        for name in "bc":
            t.mind(name).discuss = agrees
        task = await t.goal("a")
        assert await t["a"].call("hmmm.audience", task_id=task, attempt=1) == {"members": 2}
        session = await t.open("a", task)
        said = await t.result("a", session)
        assert (said["outcome"], said["plan"]) == ("unanimous", "the plan")
        assert sorted(word["from"] for word in said["said"]) == ["b", "c"]
        # Opened again, it is the same, and nothing is said anew.
        assert await t.open("a", task, "another plan") == session
        assert (await t.result("a", session))["plan"] == "the plan"
        for name in "abc":
            shown = await t.until_shown(name, session, lambda s: s["session"]["state"] == "concluded")
            assert shown["session"]["outcome"] == "unanimous"
        record = t.record("a", session)
        assert record["kind"] == "hmmm_outcome"
        assert (record["task_id"], record["attempt"]) == (task, 1)
        # Known as soon as the discussion is over: the goal's result names it.
        assert record["address"] == said["address"]
        assert record["decided"]["participants"] == ["peer-a", "peer-b", "peer-c"]
        transcript = t.world.mesh.records[f"/chorus/content/{record['decided']['transcript_sha256']}"]
        lines = [orjson.loads(line) for line in transcript.payload.splitlines()]
        assert [line.get("intent") for line in lines] == [
            None,
            "proposal",
            "agreement",
            "agreement",
            "update",
        ]
        # The transcript stands at an address too, which the record names.
        (address,) = record["links"]["derived_from"]
        place = t["c"].parts.hmmm.room.table
        await t["c"].until(lambda: any(v.address == address for v in place.select(_version())), address)
        assert t.record("a", session)["links"]["derived_from"][0].endswith("/1/transcript.jsonl")


def _version() -> Any:
    from chorus.table.records import Version

    return Version


async def test_a_goal_for_local_models_is_told_to_no_other(tmp_path: Path) -> None:
    async with talking(tmp_path, remote="c") as t:
        for name in "bc":
            t.mind(name).discuss = agrees
        task = await t.goal("a", local_model=True)
        assert await t["a"].call("hmmm.audience", task_id=task, attempt=1) == {"members": 1}
        said = await t.result("a", await t.open("a", task))
        # Who has no such model is not waited for, and whose mind is asked knows that it may use no other.
        assert said["outcome"] == "unanimous"
        assert [head["task"].get("local_model") for head in t.mind("b").asked] == [True]
        assert t.mind("c").asked == []


async def test_an_objection_changes_the_plan(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        t.mind("a").discuss, t.mind("b").discuss, t.mind("c").discuss = changes, objects_once, agrees
        session = await t.open("a", await t.goal("a"))
        said = await t.result("a", session)
        assert (said["outcome"], said["plan"]) == ("unanimous", "a better plan")
        shown = await t.until_shown("c", session, lambda s: s["session"]["state"] == "concluded")
        by_id = {item["message_id"]: item for item in shown["items"] if item["kind"] == "message"}
        better = next(item for item in by_id.values() if item["message"] == "a better plan")
        objection = by_id[better["parent_id"]]
        assert (objection["intent"], objection["from"]["agent_id"]) == ("objection", "b")
        assert better["citations"][0]["ucxl"].endswith(objection["message_id"])
        assert "changed 1 time." in t.record("a", session)["summary"]


async def test_a_member_that_objects_to_something_else_is_answered_anew(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        points = {"the plan": "it forgets the tests", "plan 2": "it forgets the notes"}

        def objects(head: dict[str, Any]) -> dict[str, Any]:
            point = points.get(head["session"]["plan"])
            return {"intent": "objection", "message": point} if point else agrees(head)

        def mends(head: dict[str, Any]) -> dict[str, Any]:
            made = sum(word["intent"] == "proposal" for word in head["session"]["messages"])
            return {"intent": "proposal", "message": f"plan {made + 1}"}

        t.mind("a").discuss, t.mind("b").discuss, t.mind("c").discuss = mends, objects, agrees
        session = await t.open("a", await t.goal("a"))
        said = await t.result("a", session)
        assert (said["outcome"], said["plan"]) == ("unanimous", "plan 3")
        assert t.said("escalation_trigger") == []


def objects_again(head: dict[str, Any]) -> dict[str, Any]:
    """A mind that makes its first objection again, whatever it is answered."""
    earlier = [word["message_id"] for word in head["session"]["messages"] if word["intent"] == "objection"]
    return {"intent": "objection", "message": "no", "repeats": earlier[0] if earlier else None}


@pytest.mark.parametrize("odd", ["Z" * 26, ["x"], 1, None])
async def test_only_an_objection_of_the_discussion_is_made_again(tmp_path: Path, odd: Any) -> None:
    async with talking(tmp_path, models="ab") as t:
        t.mind("a").discuss = changes
        t.mind("b").discuss = lambda head: (
            {"intent": "objection", "message": "no", "repeats": odd}
            if head["session"]["plan"] == "the plan"
            else {"intent": "agreement", "message": "yes", "repeats": odd}
        )
        said = await t.result("a", await t.open("a", await t.goal("a")))
        assert said["outcome"] == "unanimous"
        assert [word["citations"] for name, word in t.said() if name == "b"] == [[], []]


async def test_a_mind_that_is_being_restarted_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minds, "AGAIN_S", 0.001)
    async with talking(tmp_path) as t:
        asked: list[None] = []

        def restarted(head: dict[str, Any]) -> dict[str, Any]:
            asked.append(None)
            if len(asked) == 1:
                raise HubUnavailable("no service mind")
            return changes(head)

        t.mind("a").discuss = restarted
        t.mind("b").discuss, t.mind("c").discuss = objects_once, agrees
        said = await t.result("a", await t.open("a", await t.goal("a")))
        assert (said["outcome"], said["plan"]) == ("unanimous", "a better plan")


async def test_the_period_passes_in_silence(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        session = await t.open("a", await t.goal("a"))
        await t["a"].until(lambda: bool(t.mind("b").asked) and bool(t.mind("c").asked), "asked")
        assert not (await t["a"].call("hmmm.result", session_id=session, wait_s=0))["over"]
        t.pass_time(31)
        assert (await t.result("a", session))["outcome"] == "period"


async def test_nobody_to_answer_costs_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path, models="a") as t:
        task = await t.goal("a")
        assert await t["a"].call("hmmm.audience", task_id=task, attempt=1) == {"members": 0}
        said = await t.result("a", await t.open("a", task))
        assert (said["outcome"], said["plan"]) == ("alone", "the plan")


async def test_a_person_who_reads_along_can_answer(tmp_path: Path) -> None:
    async with talking(tmp_path, models="a") as t:
        assert (await t["b"].call("hmmm.read"))["for_s"] == 30
        task = await t.goal("a")
        assert await t["a"].call("hmmm.audience", task_id=task, attempt=1) == {"members": 1}
        session = await t.open("a", task)
        await t.until_shown("b", session, lambda s: bool(s["session"]["plan"]))
        assert not (await t["a"].call("hmmm.result", session_id=session, wait_s=0))["over"]
        await t["b"].call("hmmm.say", session_id=session, message="yes", name="ann", intent="agreement")
        said = await t.result("a", session)
        assert (said["outcome"], said["said"][0]["name"]) == ("unanimous", "ann")
        await t.end("a", task)
        # Who does not say it again has gone, and costs nothing any more.
        t.pass_time(31)
        assert (await t.result("a", await t.open("a", await t.goal("a"))))["outcome"] == "alone"


async def test_a_person_who_reads_at_the_owner_or_silently_holds_it_up_for_the_period(tmp_path: Path) -> None:
    async with talking(tmp_path, models="a") as t:
        for name in "ac":
            await t[name].call("hmmm.read")
        task = await t.goal("a")
        assert await t["a"].call("hmmm.audience", task_id=task, attempt=1) == {"members": 2}
        session = await t.open("a", task)
        await t["a"].call("hmmm.say", session_id=session, message="yes", name="bob", intent="agreement")
        assert not (await t["a"].call("hmmm.result", session_id=session, wait_s=0))["over"]
        t.pass_time(31)
        assert (await t.result("a", session))["outcome"] == "period"


async def test_a_person_answers_an_escalation_through_another_agent(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        t.mind("b").discuss = objects_again
        t.mind("a").discuss = changes
        session = await t.open("a", await t.goal("a"))
        shown = await t.until_shown("c", session, lambda s: s["session"]["state"] == "escalated")
        first, again = (item for item in shown["items"] if item.get("intent") == "objection")
        assert again["citations"][0]["ucxl"].endswith(first["message_id"])
        assert "the same point" in shown["items"][-1]["message"]
        (trigger,) = t.said("escalation_trigger")
        assert (trigger[0], trigger[1]["session_id"]) == ("a", session)
        t.mind("a").discuss = lambda head: {"intent": "proposal", "message": "as ann says"}
        answer = await t["c"].call("hmmm.say", session_id=session, message="mind the tests", name="ann")
        assert answer["message"]["from"]["person"] == "ann"
        # Said again, it is the same.
        again = await t["c"].call("hmmm.say", session_id=session, message="mind the tests", name="ann")
        assert again == answer
        said = await t.result("a", session)
        assert (said["outcome"], said["plan"]) == ("answered", "as ann says")
        assert {"from": "c", "name": "ann", "intent": "answer", "message": "mind the tests"} in said["said"]
        assert "ann" in t.record("a", session)["decided"]["reason"]
        with pytest.raises(HubRefused, match="over"):
            await t["a"].call("hmmm.say", session_id=session, message="too late")


async def test_an_unanswered_escalation_goes_on_with_the_plan(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        # The owner's mind has no answer to the objection.
        t.mind("b").discuss = lambda head: {"intent": "objection", "message": "no"}
        session = await t.open("a", await t.goal("a"))
        await t.until_shown("a", session, lambda s: s["session"]["state"] == "escalated")
        t.pass_time(601)
        said = await t.result("a", session)
        assert (said["outcome"], said["plan"]) == ("timeout", "the plan")
        assert "goes on" in t.record("a", session)["decided"]["reason"]


@pytest.mark.parametrize(
    "odd",
    [
        {"intent": ["agreement"], "message": "yes"},
        {"intent": "proposal", "message": "mine is better"},
        {"intent": "agreement", "message": " "},
        {"intent": "agreement", "message": {"text": "yes"}},
        {"intent": "agreement", "message": "yes", "citations": [1, {"ucxl": "http://x"}, {}]},
        {"intent": "agreement", "message": "yes" * 10_000},
    ],
)
async def test_a_mind_of_any_words_is_asked_once(tmp_path: Path, odd: dict[str, Any]) -> None:
    async with talking(tmp_path) as t:
        t.mind("b").discuss = lambda head: odd
        session = await t.open("a", await t.goal("a"))
        await t["a"].until(lambda: bool(t.mind("b").asked) and bool(t.mind("c").asked), "asked")
        t.pass_time(31)
        await t.result("a", session)
        assert len(t.mind("b").asked) == 1
        for _, word in t.said():
            assert len(word["message"].encode()) <= 4096
            assert word["citations"] == []


async def test_a_person_objects_before_agents_do(tmp_path: Path) -> None:
    async with talking(tmp_path, models="ab") as t:
        t.mind("a").discuss = changes
        session = await t.open("a", await t.goal("a"))
        await t.until_shown("c", session, lambda s: bool(s["session"]["plan"]))
        await t["c"].call("hmmm.say", session_id=session, message="no", name="bob", intent="objection")
        await t.until_shown("a", session, lambda s: s["session"]["plan"] == "a better plan")
        with pytest.raises(HubRefused, match="intent"):
            await t["c"].call("hmmm.say", session_id=session, message="mine", intent="proposal")
        with pytest.raises(HubRefused, match="parent_id"):
            await t["c"].call("hmmm.say", session_id=session, message="x", parent_id="Z" * 26)
        with pytest.raises(HubNotFound):
            await t["c"].call("hmmm.say", session_id="Z" * 26, message="x")


async def test_forged_words_count_for_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        session = await t.open("a", await t.goal("a"))
        await t.until_shown("b", session, lambda s: bool(s["session"]["plan"]))
        plan = message_id(session, "peer-a", "", "")

        def word(agent_id: str, ident: str, **more: Any) -> dict[str, Any]:
            said = {
                "session_id": session, "message_id": ident, "parent_id": plan, "citations": [],
                "from": {"agent_id": agent_id, "role": ""}, "message": "m", "intent": "objection",
                "timestamp": "2026-01-01T00:00:00.000Z",
            }  # fmt: skip
            return said | more

        stranger = t.world.mesh.hub("x", "node")
        member = t.world.mesh.hub("c", "node")
        # A stranger or a member under another's name; a member that concludes; no message at all.
        await stranger.publish(META_DISCUSSION, "hmmm.message", word("b", "1" * 26))
        await member.publish(META_DISCUSSION, "hmmm.message", word("b", "2" * 26))
        text = "concluded: unanimous\nall agreed"
        concludes = message_id(session, "peer-c", plan, "end")
        await member.publish(
            META_DISCUSSION, "hmmm.message", word("c", concludes, message=text, intent="update")
        )
        await member.publish(META_DISCUSSION, "hmmm.message", {"session_id": session})
        # The first word of a member counts, the second one to the same message does not.
        again = message_id(session, "peer-c", plan, "")
        await member.publish(META_DISCUSSION, "hmmm.message", word("c", again, intent="agreement"))
        shown = await t.until_shown("a", session, lambda s: len(s["items"]) >= 2)
        assert [item["message_id"] for item in shown["items"]] == [plan, concludes]
        assert shown["session"]["state"] == "open"


async def test_nobody_takes_the_id_of_somebody_elses_message(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        session = await t.open("a", await t.goal("a"))
        await t.until_shown("a", session, lambda s: bool(s["session"]["plan"]))
        plan = message_id(session, "peer-a", "", "")
        # The id under which the owner concludes, and the one of another's reply, as anybody can tell them.
        for taken in (message_id(session, "peer-a", plan, "end"), message_id(session, "peer-b", plan, "")):
            said = {
                "session_id": session, "message_id": taken, "parent_id": plan, "citations": [],
                "from": {"agent_id": "c", "role": ""}, "message": "m", "intent": "update",
                "timestamp": "2026-01-01T00:00:00.000Z",
            }  # fmt: skip
            await t.world.mesh.hub("c", "node").publish(META_DISCUSSION, "hmmm.message", said)
        t.mind("b").discuss = t.mind("c").discuss = agrees
        for name in "bc":
            await t.until_shown(name, session, lambda s: bool(s["session"]["plan"]))
        t.pass_time(31)
        assert (await t.result("a", session))["over"]


async def test_a_discussion_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        t.mind("b").discuss = agrees
        task = await t.goal("a")
        session = await t.open("a", task)
        await t.until_shown("a", session, lambda s: len(s["items"]) == 2)
        t.mind("c").discuss = agrees
        await t.restart("c", "b", "a")
        # What was said while others were away is said again when the owner repeats its plan.
        await t.until_shown("c", session, lambda s: len(s["items"]) == 3)
        t.pass_time(8)
        assert (await t.result("a", session))["outcome"] == "unanimous"
        proposals = [data for name, data in t.said() if data["intent"] == "proposal"]
        assert len({data["message_id"] for data in proposals}) == 1


async def test_one_record_whatever_step_it_is_killed_at(tmp_path: Path) -> None:
    async with talking(tmp_path, models="a") as t:
        for step in ("dht_put", "publish", "log_append", "redact_json"):
            task = await t.goal("a")
            agent = t["a"]
            original = getattr(agent.hub, step)
            cut = []

            async def broken(*args: Any, cut: list[str] = cut, **more: Any) -> Any:
                cut.append("")
                raise HubRefused("cut here")

            setattr(agent.hub, step, broken)
            session = await t.open("a", task)
            await agent.until(lambda cut=cut: bool(cut), step)  # type: ignore[misc]
            setattr(agent.hub, step, original)
            await t.restart("a")
            said = await t.result("a", session)
            listed = [d for d in _decisions(t) if d.task_id == task]
            assert [d.kind for d in listed] == ["hmmm_outcome"]
            assert listed[0].address == said["address"]
            await t.end("a", task)


def _decisions(t: Any) -> list[Any]:
    from chorus.table.records import Decision

    return list(t["c"].parts.store.select(Decision))


async def test_the_end_of_the_attempt_ends_the_discussion(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        task = await t.goal("a")
        session = await t.open("a", task)
        for name in "bc":
            await t.until_shown(name, session, lambda s: bool(s["items"]))
        await t.end("a", task)
        assert (await t.result("a", session))["outcome"] == "ended"
        for name in "bc":
            await t.until_shown(name, session, lambda s: s["ended"])
        with pytest.raises(HubNotFound, match="not under way"):
            await t.open("a", task)


async def test_a_discussion_of_an_attempt_that_the_table_does_not_know_ends(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        hmmm = t["a"].parts.hmmm
        # As one that joined another mesh still has them: its own, and another's.
        own = hmmm.talk.open(Goal("1" * 26, 1, "peer-a", {"title": "mend it"}), "the plan")
        theirs = hmmm.room.ensure(Goal("2" * 26, 1, "peer-b", {"title": "mend it"})).session_id
        t.pass_time(29 * 60)
        for session in (own, theirs):
            shown = await t.shown("a", session)
            assert (shown["session"]["state"], shown["ended"]) == ("open", False)
        t.pass_time(60)
        for session in (own, theirs):
            shown = await t.until_shown("a", session, lambda s: bool(s["ended"]))
            assert shown["session"]["state"] == "concluded"
            assert shown["session"]["outcome"] == "ended"
            assert "knows the attempt no longer" in shown["session"]["reason"]


async def test_secrets_are_neither_stored_nor_sent(tmp_path: Path) -> None:
    token = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
    async with talking(tmp_path) as t:
        for name in "bc":
            t.mind(name).discuss = lambda head: {"intent": "agreement", "message": f"use {token}"}
        session = await t.open("a", await t.goal("a"), f"log in with {token}")
        await t.result("a", session)
        for name in "abc":
            assert token not in repr(await t.shown(name, session))
        assert token not in repr(t.said())
        assert token not in repr([value.payload for value in t.world.mesh.records.values()])


async def test_only_the_attempts_agent_opens_and_the_switch_is_off(tmp_path: Path) -> None:
    async with talking(tmp_path) as t:
        task = await t.goal("a")
        with pytest.raises(HubNotFound):
            await t["b"].call("hmmm.open", task_id=task, attempt=1, plan="mine")
        t["a"].parts.hmmm.enabled = False
        assert await t["a"].call("hmmm.audience", task_id=task, attempt=1) == {"members": 0}
        with pytest.raises(HubRefused, match="CHORUS_HMMM_ENABLED"):
            await t.open("a", task)


async def test_pages_of_sessions(tmp_path: Path) -> None:
    async with talking(tmp_path, models="a") as t:
        made = []
        for _ in range(3):
            t.world.mesh.now_ms += 1
            task = await t.goal("a")
            made.append(await t.open("a", task))
            await t.result("a", made[-1])
            await t.end("a", task)
        first = await t["a"].call("hmmm.list", limit=2)
        rest = await t["a"].call("hmmm.list", limit=2, cursor=first["next"])
        assert [item["session_id"] for item in (*first["items"], *rest["items"])] == made[::-1]
        assert rest["next"] is None
        (own,) = (await t["a"].call("hmmm.list", task_id=task))["items"]
        assert own["agent_id"] == "a"


async def test_a_list_reads_nothing_of_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(tmp_path) as t:
        # An escalation, a changed plan, and a discussion that goes on: also after a restart.
        t.mind("a").discuss = lambda head: {"intent": "objection", "message": "no"}
        escalated = await t.open("b", await t.goal("b"))
        await t.until_shown("a", escalated, lambda s: s["session"]["state"] == "escalated")
        t.world.mesh.now_ms += 1
        t.mind("a").discuss, t.mind("b").discuss, t.mind("c").discuss = changes, objects_once, agrees
        changed = await t.open("a", await t.goal("a"))
        record = (await t.result("a", changed))["address"]
        t.world.mesh.now_ms += 1
        t.mind("a").discuss = t.mind("b").discuss = lambda head: {}
        silent = await t.open("c", await t.goal("c"))
        await t.until_shown("a", silent, lambda s: bool(s["session"]["plan"]))
        await t.restart("a")

        def read(*args: Any, **more: Any) -> Any:
            raise AssertionError("the list reads what was said")

        monkeypatch.setattr(HmmmStore, "items", read)
        listed = (await t["a"].call("hmmm.list"))["items"]
        shown = [(item["session_id"], item["state"], item["plan"], item["record"]) for item in listed]
        assert shown == [
            (silent, "open", "the plan", None),
            (changed, "concluded", "a better plan", record),
            (escalated, "escalated", "the plan", None),
        ]

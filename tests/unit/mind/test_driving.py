"""A driving over a hub in memory: it reaches the goal, alone and with others, and over any restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from goal_executor import (
    ORACLE,
    SECRET,
    TASK_ID,
    GoalExecutor,
    ScriptedModel,
    does,
)
from goal_journal import BEGAN, reply

from chorus.hub import HubClosed, HubInternal, HubTooLarge, HubUnavailable, Request
from chorus.mind.driving import Parts, drive
from chorus.mind.thinking import ModelAway, ModelRefused, ModelTooLong, Reply, ToolCall
from chorus.process.logs import bind
from chorus.testing.fake_hub import FakeMesh


class World:
    """An agent with the stand-ins for executor and coordinator, and a clock that sleeping turns on."""

    def __init__(self, model: ScriptedModel, **of_start: Any) -> None:
        self.executor = GoalExecutor(**of_start)
        self.model = model
        self.mesh = FakeMesh()
        self.prompt = "You are a tester."
        self.now = BEGAN
        self.hmmm: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.talked: list[tuple[str, dict[str, Any]]] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def open(self) -> World:
        await self.mesh.hub("a", "executor").offer("session", self.executor.serve)
        await self.mesh.hub("a", "coordinator").offer("coordinator", self.talk)
        return self

    async def talk(self, request: Request) -> dict[str, Any]:
        method = request.method.removeprefix("hmmm.")
        self.talked.append((method, request.head))
        if method not in self.hmmm:
            raise HubUnavailable("nobody talks here")
        return self.hmmm[method](request.head)

    async def drive(self, secret: str = SECRET, task: dict[str, Any] | None = None) -> None:
        parts = Parts(
            hub=self.mesh.hub("a", "mind"),
            thinking=self.model,
            prompt=lambda role: self.prompt,
            log=bind(),
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        async with asyncio.timeout(20):
            await drive(parts, TASK_ID, 1, task or {}, secret)


async def driven(script: Sequence[Reply | Exception], **of_start: Any) -> World:
    world = await World(ScriptedModel(script), **of_start).open()
    world.hmmm["audience"] = lambda head: {"members": 0}
    await world.drive()
    return world


async def test_the_goal_is_reached() -> None:
    world = await driven(ORACLE)
    assert (world.executor.ended, world.executor.reason) == ("finished", "mended the sum")
    assert world.executor.done == [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2), (3, 3)]
    assert "pytest: 1 failed" in world.model.asked[2][-1].text


async def test_what_a_model_writes_is_done_once_it_was_told_that_it_may_write() -> None:
    script = (
        reply(text="It would be this:\n```bash\nrm sum.py\n```"),
        reply(text="```bash\ncat sum.py\n```"),
        does("edit", path="sum.py", old="-", new="+"),
        reply(text="```bash\nrm sum.py\n```"),
        reply(text="DONE\nmended the sum"),
    )
    world = await driven(script)
    called = [[call["arguments"] for call in record["calls"]] for record in world.executor.of("reply")]
    read, edit = {"command": "cat sum.py"}, {"path": "sum.py", "old": "-", "new": "+"}
    assert called == [[], [read], [edit], [], [{"summary": "mended the sum"}]]
    assert [record["written"] for record in world.executor.of("reply")] == [False, True, False, False, True]
    told = [turns[-1].text for turns in world.model.asked[1:]]
    assert ["```bash" in text for text in told] == [True, False, False, True]
    assert (world.executor.ended, world.executor.reason) == ("finished", "mended the sum")


async def test_a_reply_is_journaled_before_its_first_call() -> None:
    kinds = [record["kind"] for record in (await driven(ORACLE)).executor.records]
    assert kinds[:7] == ["start", "note", "reply", "call", "outcome", "call", "outcome"]


@pytest.mark.parametrize("talks", [False, True])
async def test_it_goes_on_after_a_restart_between_any_two_records(talks: bool) -> None:
    whole = await killed_at(0, talks)
    for number in range(1, len(whole.executor.records) + 1):
        world = await killed_at(number, talks)
        assert world.executor.records == whole.executor.records
        assert world.executor.done == whole.executor.done
        assert (world.executor.ended, world.executor.reason) == ("finished", "mended the sum")
        # What was under way is asked again, what is in the journal is not.
        assert len(world.model.asked) <= len(whole.model.asked) + 1


async def test_a_restarted_run_keeps_the_prompt_that_it_began_with() -> None:
    """Files of prompts that change count from the next run on."""
    world = await World(ScriptedModel(ORACLE)).open()
    world.hmmm["audience"] = lambda head: {"members": 0}
    first = asyncio.create_task(world.drive())
    world.executor.written = lambda record: first.cancel() if record["kind"] == "outcome" else None
    await asyncio.gather(first, return_exceptions=True)
    world.executor.written = lambda record: None
    world.prompt = "You are somebody else."
    await world.drive()
    assert world.executor.ended == "finished"
    assert len(world.model.asked) > 1
    assert all(turns[0].text.startswith("You are a tester.") for turns in world.model.asked)
    [told] = [note for note in world.executor.of("note") if note["kind2"] == "prompt"]
    assert told["text"] == "You are a tester."


async def killed_at(number: int, talks: bool) -> World:
    """A goal whose driving is killed when the record of that number is written, and started again."""
    world = await World(ScriptedModel(ORACLE)).open()
    world.hmmm = {
        "audience": lambda head: {"members": int(talks)},
        "open": lambda head: {"session_id": "s1"},
        "result": lambda head: {"over": True, "outcome": "unanimous", "plan": "read, mend", "said": []},
    }
    first = asyncio.create_task(world.drive())
    world.executor.written = lambda record: first.cancel() if record["n"] == number else None
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled() == (number > 1)
    await world.drive()
    return world


async def test_what_may_pass_is_asked_again() -> None:
    world = await World(ScriptedModel(ORACLE)).open()
    world.hmmm["audience"] = lambda head: {"members": 0}
    errors = [HubUnavailable("x"), HubClosed("x"), HubInternal("disk: full")]
    world.executor.written = lambda record: world.executor.failing.extend(errors)
    await world.drive()
    assert world.executor.ended == "finished"
    assert len(world.executor.done) == len(set(world.executor.done)) == 6


async def test_it_ends_in_silence_when_the_attempt_is_not_its_own() -> None:
    world = await World(ScriptedModel(ORACLE)).open()
    await world.drive(secret="another")
    assert [record["kind"] for record in world.executor.records] == ["start"]


async def test_a_call_that_the_executor_refuses_is_told_to_the_model() -> None:
    world = await World(ScriptedModel((does("search", pattern="x"), *ORACLE[2:]))).open()
    world.hmmm["audience"] = lambda head: {"members": 0}
    await world.drive()
    assert "search is not known here" in world.model.asked[1][-1].text
    assert world.executor.ended == "finished"


async def test_words_of_people_enter_before_the_next_step() -> None:
    world = await World(ScriptedModel(ORACLE)).open()
    word = {"kind": "message", "id": "m1", "from": "person", "name": "Ann", "text": "mind the sign"}

    def say(record: dict[str, Any]) -> None:
        if record["kind"] == "reply" and record["step"] == 1:
            world.executor.write(word)

    world.executor.written = say
    await world.drive()
    assert "mind the sign" in world.model.asked[1][-1].text


class TestModelAway:
    @pytest.mark.parametrize(
        ("error", "refused"),
        [
            (ModelAway("no server"), False),
            (ModelRefused("no money", lasting=False), False),
            (ModelRefused("400: the prompt is too long"), True),
        ],
    )
    async def test_before_the_first_step_the_run_ends_at_once(self, error: Exception, refused: bool) -> None:
        world = await driven([error])
        assert (world.executor.ended, world.executor.reason) == ("model", str(error))
        # Of what another attempt would meet again the executor is told.
        assert world.executor.refused is refused
        assert world.now == BEGAN

    async def test_later_it_is_waited_for(self) -> None:
        model = ScriptedModel([ORACLE[0], *([ModelAway("down")]), *ORACLE[2:]])
        world = await World(model).open()
        world.hmmm["audience"] = lambda head: {"members": 0}

        async def back_after_a_minute(seconds: float) -> None:
            world.now += seconds
            if world.now > BEGAN + 60:
                model.script = ORACLE
            await asyncio.sleep(0)

        world.sleep = back_after_a_minute  # type: ignore[method-assign]
        await world.drive()
        assert world.executor.ended == "finished"
        assert [(note["kind2"], note["text"]) for note in world.executor.of("note")[1:]] == [("away", "down")]

    async def test_it_is_waited_for_within_the_tasks_time_alone(self) -> None:
        world = await driven([ORACLE[0], ModelAway("down")])
        assert (world.executor.ended, world.executor.reason) == ("model", "down")
        assert BEGAN + 600 < world.now < BEGAN + 900


class TestTalk:
    async def test_a_plan_is_talked_over_and_changed(self) -> None:
        world = await World(ScriptedModel(ORACLE)).open()
        said = [{"from": "peer-b", "name": "b", "intent": "objection", "message": "test first"}]
        results = [{"over": False}, {"over": True, "outcome": "agreed", "plan": "test, mend", "said": said}]
        results[1]["address"] = "ucxl://a"
        world.hmmm = {
            "audience": lambda head: {"members": 2},
            "open": lambda head: {"session_id": "s1"},
            "result": lambda head: results.pop(0),
        }
        await world.drive(task={"project": "sums"})
        assert world.talked[1][1]["plan"] == "1. read 2. mend"
        assert world.talked[1][1]["project"] == "sums"
        plans = world.executor.of("plan")
        assert [plan["text"] for plan in plans] == ["1. read 2. mend", "test, mend"]
        assert (plans[1]["outcome"], plans[1]["session"], plans[1]["advice"]) == ("agreed", "s1", said)
        # The result of the goal names the record of its discussion by this.
        assert plans[1]["address"] == "ucxl://a"
        assert "test first" in world.model.asked[1][-1].text
        assert world.executor.ended == "finished"

    @pytest.mark.parametrize("missing", ["audience", "open", "result"])
    async def test_without_it_the_run_goes_on_and_says_so(self, missing: str) -> None:
        world = await World(ScriptedModel(ORACLE)).open()
        world.hmmm = {
            "audience": lambda head: {"members": 2},
            "open": lambda head: {"session_id": "s1"},
            "result": lambda head: {"over": True, "outcome": "agreed"},
        }
        del world.hmmm[missing]
        await world.drive()
        assert world.executor.ended == "finished"
        assert "nobody talks here" in world.executor.of("note")[1]["text"]

    async def test_a_discussion_without_end_is_left(self) -> None:
        world = await World(ScriptedModel(ORACLE)).open()

        def nothing_yet(head: dict[str, Any]) -> dict[str, Any]:
            world.now += head["wait_s"]
            return {"over": False}

        world.hmmm = {
            "audience": lambda head: {"members": 2},
            "open": lambda head: {"session_id": "s1"},
            "result": nothing_yet,
        }
        await world.drive()
        assert world.executor.of("plan")[1]["outcome"] == "timeout"
        assert world.executor.ended == "finished"

    async def test_advice_helps_a_stuck_run(self) -> None:
        loop = [does("run", command="ls")] * 8
        world = await World(ScriptedModel([*loop, *ORACLE[2:]])).open()
        world.hmmm = {
            "audience": lambda head: {"members": 0},
            "help": lambda head: {"advice": [{"from": "peer-b", "name": "b", "message": "mind the sign"}]},
        }
        await world.drive()
        assert world.executor.ended == "finished"
        assert "mind the sign" in world.model.asked[8][-1].text

    async def test_a_stuck_run_ends_when_nobody_can_be_asked(self) -> None:
        world = await driven([does("run", command="ls")] * 9)
        assert world.executor.ended == "stuck"
        assert "step 8: run ls" in world.executor.reason
        assert len(world.executor.of("reply")) == 8


class TestRoom:
    async def test_old_output_is_left_out_and_then_summed_up(self) -> None:
        script = [
            reply(ToolCall("write", {"path": f"f{number}", "text": "x" * 3000}), text="y" * 3000)
            for number in range(30)
        ]
        model = ScriptedModel(script, size=10000, plan="so far so good")
        world = await World(model, budget={"steps": 20}).open()
        world.hmmm["audience"] = lambda head: {"members": 0}
        # The model of this test tells the step by the turns that are shown; here by the journal.
        ask = model.ask

        async def next_step(turns: Any, tools: Any, **more: Any) -> Reply:
            if not tools:
                return await ask(turns, tools, **more)
            return script[len(world.executor.of("reply"))]

        model.ask = next_step  # type: ignore[method-assign]
        await world.drive()
        assert world.executor.ended == "steps"
        kinds = {note["kind2"] for note in world.executor.of("note")}
        assert {"blanked", "summary"} <= kinds

    async def test_a_plain_list_stands_in_for_a_summary_that_failed(self) -> None:
        script = [reply(does("run", command=f"ls {n}").calls[0], text="y" * 3000) for n in range(30)]
        model = ScriptedModel(script, size=8000)
        world = await World(model, budget={"steps": 12}).open()
        world.hmmm["audience"] = lambda head: {"members": 0}

        async def next_step(turns: Any, tools: Any, **more: Any) -> Reply:
            if not tools:
                raise ModelAway("down")
            return script[len(world.executor.of("reply"))]

        model.ask = next_step  # type: ignore[method-assign]
        await world.drive()
        summaries = [note for note in world.executor.of("note") if note["kind2"] == "summary"]
        assert "step 1: run ls 0 -> exit code 0" in summaries[0]["text"]


class TestTooLong:
    """A server that takes fewer tokens than the loop counts."""

    async def driven(self, takes: int, *, killed: bool = False) -> tuple[World, list[int]]:
        script = [*(does("run", command=f"ls {n} {'x' * 2000}") for n in range(9)), *ORACLE[2:]]
        world = await World(ScriptedModel(script)).open()
        world.hmmm["audience"] = lambda head: {"members": 0}
        sizes = list[int]()

        async def next_step(turns: Any, tools: Any, **more: Any) -> Reply:
            sizes.append(sum(len(turn.text) + len(str(turn.calls)) for turn in turns))
            if sizes[-1] > takes:
                raise ModelTooLong("the context length is exceeded")
            return script[len(world.executor.of("reply"))]

        world.model.ask = next_step  # type: ignore[method-assign]
        first = asyncio.create_task(world.drive())

        def kill(record: dict[str, Any]) -> None:
            if killed and record.get("kind2") == "too_long":
                first.cancel()

        world.executor.written = kill
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled() is killed
        if killed:
            await world.drive()
        return world, sizes

    @pytest.mark.parametrize("killed", [False, True])
    async def test_room_is_made_and_the_step_asked_again(self, killed: bool) -> None:
        world, sizes = await self.driven(14_000, killed=killed)
        assert (world.executor.ended, world.executor.reason) == ("finished", "mended the sum")
        refused = [note for note in world.executor.of("note") if note["kind2"] == "too_long"]
        assert len(refused) == sum(size > 14_000 for size in sizes)
        assert 1 <= len(refused) <= 3
        assert all(note["factor"] > 1 for note in refused)

    async def test_one_that_takes_nothing_is_not_asked_for_ever(self) -> None:
        world, sizes = await self.driven(10)
        assert (world.executor.ended, world.executor.refused) == ("model", True)
        assert len(sizes) == 1

    async def test_what_cannot_be_shortened_enough_ends_the_run(self) -> None:
        world, sizes = await self.driven(2_600)
        assert (world.executor.ended, world.executor.reason) == ("model", "the context length is exceeded")
        assert 2 <= sum(size > 2_600 for size in sizes) <= 5


async def test_a_broken_loop_ends_the_run_and_says_so() -> None:
    world = await driven([ORACLE[0], ValueError("a bug")])
    assert world.executor.ended == "model"
    assert "a bug" in world.executor.reason


async def test_a_journal_that_takes_no_record_ends_the_run() -> None:
    world = await World(ScriptedModel(ORACLE)).open()
    world.hmmm["audience"] = lambda head: {"members": 0}
    ask = world.model.ask

    async def too_long(turns: Any, tools: Any, **more: Any) -> Reply:
        world.executor.failing.append(HubTooLarge("a record of 9 MiB"))
        return await ask(turns, tools, **more)

    world.model.ask = too_long  # type: ignore[method-assign]
    await world.drive()
    assert world.executor.ended == "model"
    assert "9 MiB" in world.executor.reason


async def test_stopping_ends_it_at_once() -> None:
    world = await World(ScriptedModel(ORACLE)).open()
    world.hmmm["audience"] = lambda head: {"members": 0}
    never = asyncio.Event()
    asked = asyncio.Event()

    async def hang(turns: Any, tools: Any, **more: Any) -> Reply:
        asked.set()
        await never.wait()
        raise AssertionError

    world.model.ask = hang  # type: ignore[method-assign]
    driving = asyncio.create_task(world.drive())
    await asked.wait()
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    assert world.executor.ended is None

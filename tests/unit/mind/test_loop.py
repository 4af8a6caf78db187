"""What the loop wants done next, as a table of journals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from goal_journal import BEGAN, Story, call, run_of, start, texts

from chorus.mind.run import Action, Ask, Call, Discuss, Finish, Help, Note, Plan, Wait
from chorus.mind.run.records import discussed_record, note, plan_record

NOW = BEGAN + 10


def next_of(story: Story, **changes: Any) -> Action:
    return story.run(**changes).next(NOW)


def asked(story: Story, **changes: Any) -> Ask:
    action = next_of(story, **changes)
    assert isinstance(action, Ask)
    return action


def test_nothing_is_done_before_the_journal_begins() -> None:
    assert run_of().next(NOW) == Wait(over=False)


def test_the_first_step_shows_prompt_and_goal() -> None:
    ask = asked(Story())
    assert (ask.step, ask.deadline_s) == (1, 885)
    assert [turn.role for turn in ask.turns] == ["system", "user"]
    assert "You are a developer." in ask.turns[0].text
    assert "test_sum fails; mend it" in ask.turns[1].text
    assert {tool.name for tool in ask.tools} == {
        "run", "read", "write", "edit", "list", "search", "ask_peers", "finish",
    }  # fmt: skip


def test_calls_of_a_reply_are_done_in_order() -> None:
    story = Story().reply(call("run", command="ls"), call("read", path="sum.py", first="3"))
    assert next_of(story) == Call(1, 1, "run", {"command": "ls"})
    story.outcome("sum.py")
    assert next_of(story) == Call(1, 2, "read", {"path": "sum.py", "first": 3})
    story.outcome("def sum", call=2)
    ask = asked(story)
    assert ask.step == 2
    assert [turn.role for turn in ask.turns] == ["system", "user", "assistant", "tool", "tool"]


def test_a_call_that_was_begun_without_an_outcome_is_asked_for_again() -> None:
    story = Story().reply(call("run", command="ls"))
    story.add(kind="call", step=1, call=1, tool="run", arguments={"command": "ls"})
    assert next_of(story) == Call(1, 1, "run", {"command": "ls"})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (call("teleport", to="home"), "no tool 'teleport'"),
        (call("run"), "command is missing"),
        (call("run", command=" "), "command is empty"),
        (call("run", command=7), "command has to be a text"),
        (call("read", path="a", first=0), "first has to be a whole number"),
        (call("read", path="a", first=9, last=3), "last is before first"),
        (call("read", file="a"), "no argument 'file'"),
        (call("search", pattern="a", regex="maybe"), "regex has to be true or false"),
        (call("write", path="a\0b", text=""), "zero byte"),
    ],
)
def test_what_cannot_be_done_is_answered_by_name_and_not_done(wrong: Any, said: str) -> None:
    story = Story().reply(wrong, call("run", command="ls"))
    assert next_of(story) == Call(1, 2, "run", {"command": "ls"})
    assert said in asked(story.outcome("x", call=2)).turns[3].text


def test_a_model_that_calls_nothing_may_write_its_calls_from_then_on() -> None:
    story = Story()
    assert not asked(story).written
    ask = asked(story.reply(text="I would read it first."))
    assert ask.written
    assert "```bash" in ask.turns[-1].text
    story.reply(call("run", command="ls"), written=True).outcome("sum.py")
    assert asked(story).written
    # It does call tools after all.
    assert not asked(story.did("run", "a", command="cat sum.py")).written


@pytest.mark.parametrize("changes", [{"unreadable": "no JSON"}, {"finish": "length"}])
def test_a_reply_that_failed_says_nothing_of_whether_a_model_calls_tools(changes: dict[str, str]) -> None:
    assert not asked(Story().reply(text="{", **changes)).written


def test_finish_is_the_executors_to_judge() -> None:
    story = Story().reply(call("finish", summary="mended"))
    assert next_of(story) == Finish("finished", "mended", 1, 1)
    refused = story.outcome("pytest -q: 1 failed", ok=False)
    assert "pytest -q: 1 failed" in texts(asked(refused).turns)
    accepted = refused.reply(call("finish", summary="now it is")).outcome("", ok=True)
    assert next_of(accepted) == Wait(over=True)


def test_giving_up_in_words_ends_the_run() -> None:
    story = Story().reply(call("finish", summary="no compiler here", gave_up=True))
    assert next_of(story) == Finish("gave_up", "no compiler here", 1, 1)


def test_an_ended_run_waits_for_nothing() -> None:
    assert next_of(Story().add(kind="end", ended_by="cancel", reason="")) == Wait(over=True)


def test_three_unreadable_replies_in_a_row_end_the_run() -> None:
    story = Story().reply(text="{", unreadable="no JSON").reply(call("teleport"))
    assert isinstance(next_of(story), Ask)
    end = next_of(story.reply(text="{", unreadable="no JSON"))
    assert isinstance(end, Finish)
    assert (end.ended_by, end.step, end.call) == ("format", 3, 0)
    assert "no JSON" in end.text


def test_a_readable_reply_between_makes_the_count_begin_anew() -> None:
    story = Story().reply(unreadable="no JSON").reply(unreadable="no JSON").did("run", "a", command="ls")
    assert isinstance(next_of(story.reply(unreadable="no JSON")), Ask)


def test_a_reply_cut_by_length_is_told_as_that() -> None:
    assert "was cut" in asked(Story().reply(text="I will", finish="length")).turns[-1].text


def test_replies_that_are_cut_go_in_circles_and_are_not_called_unreadable() -> None:
    story = Story()
    for _ in range(3):
        story.reply(text="```bash", finish="length", unreadable="no end")
    hint = next_of(story)
    assert isinstance(hint, Note)
    assert hint.record["kind2"] == "hint"


@pytest.mark.parametrize(
    ("budget", "ended_by"),
    [({"steps": 2}, "steps"), ({"tokens": 240}, "tokens"), ({"usd": 0.5}, "money")],
)
def test_a_budget_that_is_used_up_ends_the_run(budget: dict[str, Any], ended_by: str) -> None:
    story = Story(budget=budget).did("run", "a", command="ls")
    story.reply(call("run", command="pwd"), usd=0.5)
    assert isinstance(next_of(story), Call)  # what was asked for is still done
    end = next_of(story.outcome("/"))
    assert isinstance(end, Finish)
    assert end.ended_by == ended_by


@pytest.mark.parametrize("budget", [{"steps": 5}, {"tokens": 600}, {"usd": 2.5}])
def test_at_four_fifths_the_model_is_told_once(budget: dict[str, Any]) -> None:
    story = Story(budget=budget)
    for number in range(3):
        story.reply(call("run", command=f"ls {number}"), usd=0.5).outcome(str(number))
    assert isinstance(next_of(story), Ask)
    told = next_of(story.reply(call("run", command="pwd"), usd=0.5).outcome("/"))
    assert isinstance(told, Note)
    assert told.record["kind2"] == "budget"
    assert "Come to an end" in asked(story.note(told.record)).turns[-1].text


def test_the_model_is_told_when_its_time_runs_out() -> None:
    run = Story().run()
    told = run.next(BEGAN + 721)
    assert isinstance(told, Note)
    run.apply(told.record)
    assert isinstance(run.next(BEGAN + 722), Ask)
    assert run.next(BEGAN + 895) == Wait(over=False)


@pytest.mark.parametrize("at", [BEGAN, BEGAN * 1000, "2027-01-15T08:00:00.000Z"])
def test_the_time_counts_from_the_first_record(at: Any) -> None:
    ask = run_of(start(at=at)).next(NOW)
    assert isinstance(ask, Ask)
    assert ask.deadline_s == pytest.approx(885)


class TestPlan:
    def test_without_anybody_to_answer_there_is_none(self) -> None:
        assert isinstance(next_of(Story()), Ask)

    def test_it_is_asked_for_without_tools_and_talked_over(self) -> None:
        plan = next_of(Story(), talks=True)
        assert isinstance(plan, Plan)
        assert "plan" in plan.turns[-1].text
        story = Story().note(plan_record("1. read 2. mend", {}))
        assert next_of(story, talks=True) == Discuss("1. read 2. mend", 442.5)

    def test_it_is_talked_over_after_a_restart_that_finds_nobody(self) -> None:
        assert isinstance(next_of(Story().note(plan_record("read", {}))), Discuss)

    def test_what_came_of_it_stays_in_the_conversation(self) -> None:
        said = ({"from": "peer-b", "name": "b", "intent": "objection", "message": "test first"},)
        story = (
            Story().note(plan_record("mend", {})).note(discussed_record("test, mend", "agreed", "s1", said))
        )
        turns = asked(story, talks=True).turns
        # No turn of the model's: a small one goes on as it began, with words.
        assert [turn.role for turn in turns] == ["system", "user"]
        assert all(words in turns[1].text for words in ("agreed", "test first", "test, mend"))

    def test_an_empty_plan_is_not_talked_over(self) -> None:
        assert isinstance(next_of(Story().note(plan_record(" ", {})), talks=True), Ask)

    def test_it_counts_into_the_budget(self) -> None:
        story = Story(budget={"tokens": 100}).note(plan_record("", {"tokens_in": 90, "tokens_out": 10}))
        end = next_of(story)
        assert isinstance(end, Finish)
        assert end.ended_by == "tokens"


def circles(kind: str, story: Story) -> Story:
    if kind == "same outcome":
        for number in range(4):
            story.did("run", f"sum.py in 0.{number}s", command="ls")
    elif kind == "same error":
        for number in range(3):
            story.did("read", "no such file", ok=False, path=f"a{number}")
    elif kind == "no action":
        for _ in range(3):
            story.reply(text="I think about it")
    else:
        for number in range(3):
            story.did("run", f"a{number}", command="a").did("run", f"b{number}", command="b")
    return story


KINDS = ["same outcome", "same error", "no action", "taking turns"]


class TestStuck:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_circle_ends_after_a_hint_and_a_question_to_others(self, kind: str) -> None:
        story = circles(kind, Story())
        hint = next_of(story)
        assert isinstance(hint, Note)
        assert hint.record["kind2"] == "hint"
        assert "circles" in asked(story.note(hint.record)).turns[-1].text
        ask = next_of(circles(kind, story))
        assert isinstance(ask, Help)
        assert "Mend the sum" in ask.question
        advice = [{"from": "peer-b", "name": "b", "message": "look at sum.py"}]
        story.note(note("hint", ask.id, ask.question, advice=advice))
        assert "look at sum.py" in asked(story).turns[-1].text
        end = next_of(circles(kind, story))
        assert isinstance(end, Finish)
        assert end.ended_by == "stuck"
        assert "Tried" in end.text

    def test_it_ends_at_once_when_nobody_has_advice(self) -> None:
        story = circles("same outcome", Story())
        story.note(note("hint", "hint", "x"))
        circles("same outcome", story).note(note("hint", "help", "nobody", advice=[]))
        end = next_of(story)
        assert isinstance(end, Finish)
        assert end.ended_by == "stuck"

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_time_less_is_no_circle(self, kind: str) -> None:
        story = circles(kind, Story())
        whole = story.records
        cut = max(place for place, record in enumerate(whole) if record["kind"] == "reply")
        assert isinstance(run_of(*whole[:cut]).next(NOW), Ask)

    def test_a_persons_word_makes_the_count_begin_anew(self) -> None:
        story = circles("same outcome", Story())
        story.add(kind="message", id="m1", **{"from": "person"}, name="Ann", text="go on")
        assert isinstance(next_of(story), Ask)

    def test_silent_failures_of_different_commands_are_no_circle(self) -> None:
        story = Story()
        for name in "abc":
            story.reply(call("run", command=f"grep {name} x")).outcome("", ok=False, exit_code=1)
        assert isinstance(next_of(story), Ask)

    def test_another_outcome_each_time_is_no_circle(self) -> None:
        story = Story()
        for number in range(4):
            story.did("run", f"{number} failed", command="pytest")
        assert isinstance(next_of(story), Ask)


class TestPeers:
    def test_the_models_own_question_is_put_and_answered(self) -> None:
        story = Story().reply(call("ask_peers", question="which compiler?"))
        assert next_of(story) == Help("answer-1-1", "which compiler?", 1, 1)
        advice = [{"from": "peer-b", "name": "b", "message": "take gcc"}]
        story.note(note("hint", "answer-1-1", "", step=1, call=1, advice=advice))
        ask = asked(story)
        assert ask.turns[-1].role == "tool"
        assert "take gcc" in ask.turns[-1].text

    def test_only_so_many_questions_are_put(self) -> None:
        story = Story()
        for number in range(1, 4):
            story.reply(call("ask_peers", question=f"why {number}?"))
            story.note(
                note("hint", f"answer-{number}-1", "", step=number, call=1, advice=[{"message": "so"}])
            )
        refused = next_of(story.reply(call("ask_peers", question="and why?")))
        assert isinstance(refused, Note)
        assert "3 times" in asked(story.note(refused.record)).turns[-1].text


def test_another_provider_is_noted_once() -> None:
    story = Story().did("run", "a", command="ls")
    story.reply(call("run", command="pwd"), provider="resetdata").outcome("/")
    noted = next_of(story)
    assert isinstance(noted, Note)
    assert noted.record["kind2"] == "fallback"
    assert isinstance(next_of(story.note(noted.record)), Ask)


def test_words_come_in_once_and_before_the_next_step() -> None:
    word = {"kind": "message", "id": "m1", "from": "person", "name": "Ann", "text": "use gcc"}
    story = Story().did("run", "a", command="ls").add(**word).add(**word)
    last = asked(story).turns[-1]
    assert (last.role, last.text.count("use gcc")) == ("user", 1)


def test_other_agents_words_do_not_crowd_out_a_run() -> None:
    story = (
        Story().did("run", "a", command="ls").add(kind="message", id="p", **{"from": "person"}, text="stay")
    )
    for number in range(1000):
        said = f"word {number} " + "x" * 4000
        story.add(kind="message", id=f"m{number}", **{"from": "peer"}, name="b", text=said)
    shown = texts(asked(story).turns)
    assert len(shown) < 20_000
    assert "word 999 " in shown
    assert "stay" in shown
    assert "word 5 " not in shown


def test_the_first_outcome_of_a_call_counts() -> None:
    story = Story().did("run", "as it was", command="ls").outcome("as it was told later")
    assert "as it was told later" not in texts(asked(story).turns)


def test_records_that_come_twice_count_once() -> None:
    story = Story(budget={"steps": 4}).did("run", "a", command="ls").did("run", "b", command="pwd")
    once, twice = asked(story), run_of(*[record for record in story.records for _ in (1, 2)]).next(NOW)
    assert isinstance(twice, Ask)
    assert replace(twice, tools=()) == replace(once, tools=())

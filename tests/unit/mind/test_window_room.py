"""What is left out when a conversation nears the end of the window, in which order, and what stays."""

from __future__ import annotations

import orjson
from goal_journal import BEGAN, Story, call, reply, texts

from chorus.mind.run import Action, Ask, Note, Summarise
from chorus.mind.run.records import note, reply_record

# Ten steps with output of about 500 tokens each, and a person's word after the second.
OUTPUT = "x" * 2000


def ten_steps(output: str = OUTPUT) -> Story:
    story = Story(budget={}).did("run", f"first {output}", command="ls 1").did("run", output, command="ls 2")
    story.add(kind="message", id="m1", **{"from": "person"}, name="Ann", text="mind the sign")
    for number in range(3, 11):
        story.did("run", f"{number} {output}", command=f"ls {number}")
    return story


def next_of(story: Story, window: int) -> Action:
    return story.run(window=window).next(BEGAN)


def asked(story: Story, window: int) -> str:
    """What the model is shown once all notes that the loop wants are written."""
    while isinstance(action := next_of(story, window), Note):
        story.note(action.record)
    assert isinstance(action, Ask)
    return texts(action.turns)


def test_with_room_nothing_is_left_out() -> None:
    assert asked(ten_steps(), 32768).count(OUTPUT) == 10


def test_the_oldest_output_goes_first_and_only_as_much_as_needed() -> None:
    story = Story(budget={}).did("run", f"first {OUTPUT * 4}", command="ls 1")
    story.did("run", f"second {OUTPUT * 4}", command="ls 2")
    for number in range(3, 11):
        story.did("run", f"{number}", command=f"ls {number}")
    blanked = next_of(story, 6600)
    assert isinstance(blanked, Note)
    record = blanked.record
    assert (record["kind2"], record["upto"], record["kept"]) == ("blanked", [1, 1], 0)
    shown = asked(story, 6600)
    assert "first" not in shown
    assert "second" in shown


def test_then_older_steps_are_summed_up_and_the_last_five_stay() -> None:
    story = Story(budget={})
    for number in range(1, 11):
        story.reply(call("run", command=f"ls {number}"), text=f"thought {number} {OUTPUT}").outcome("a")
        if number == 2:
            story.add(kind="message", id="m1", **{"from": "person"}, name="Ann", text="mind the sign")
    summed = next_of(story, 7000)
    assert isinstance(summed, Summarise)
    assert summed.upto == 5
    assert "thought 5" in texts(summed.turns)
    assert "thought 6" not in texts(summed.turns)
    assert "step 5: run ls 5 -> done" in summed.plain
    story.note(note("summary", "summary-5", "five times ls", upto=5))
    shown = asked(story, 7000)
    assert "five times ls" in shown
    assert "mind the sign" in shown
    assert "test_sum fails; mend it" in shown
    assert "thought 5 " not in shown
    assert all(f"thought {number} " in shown for number in range(6, 11))


def test_a_summary_holds_the_one_before() -> None:
    story = Story(budget={})
    for number in range(1, 8):
        story.reply(call("run", command=f"ls {number}"), text=OUTPUT).outcome("a")
    story.note(note("summary", "summary-1", "it began well", upto=1))
    summed = next_of(story, 5000)
    assert isinstance(summed, Summarise)
    assert "it began well" in texts(summed.turns)
    assert "it began well" in summed.plain


def test_the_last_steps_are_shortened_when_they_alone_are_too_long() -> None:
    story = Story(budget={})
    story.reply(*(call("run", command=f"ls {number}") for number in range(1, 17)))
    for number in range(1, 17):
        story.outcome(f"begin {number} {'y' * 20_000} end {number}", call=number)
    shown = asked(story, 8000)
    assert len(shown) < 8000 * 4
    assert all(f"begin {number} " in shown and f" end {number}\n" in shown for number in range(1, 17))


def test_what_cannot_be_made_smaller_is_asked_as_it_is() -> None:
    assert "z" * 40_000 in asked(Story(goal="z" * 40_000), 8000)


def test_a_restart_in_the_middle_of_making_room_sees_the_same() -> None:
    story = ten_steps()
    shown = asked(story, 5000)
    again = story.run(window=5000).next(BEGAN)
    assert isinstance(again, Ask)
    assert texts(again.turns) == shown


def test_a_circle_is_seen_also_in_output_that_was_blanked() -> None:
    story = Story(budget={})
    for _ in range(4):
        story.did("run", OUTPUT * 4, command="ls")
    story.note(note("blanked", "blanked-1", "", upto=[3, 1], kept=200))
    hint = next_of(story, 32768)
    assert isinstance(hint, Note)
    assert hint.record["kind2"] == "hint"


def test_calls_that_the_journal_would_not_take_are_not_made() -> None:
    record = reply_record(1, reply(*[call("write", path="a", text="x" * 60_000)] * 16))
    assert len(orjson.dumps(record)) < 1024 * 1024
    assert record["calls"] == []
    assert "none was made" in asked(Story().add(**record), 32768)


def test_what_json_cannot_say_is_journaled_as_text() -> None:
    odd = call("run", command="\ud800", depth=float("nan"), size=10**30, deep=[[[[]]]])
    record = reply_record(1, reply(odd, text="a\ud800b"))
    assert orjson.loads(orjson.dumps(record))["text"] == "a?b"


def test_what_is_known_of_a_task_is_bounded() -> None:
    story = Story(
        checks=["c" * 16_000] * 64,
        files={"count": 9000, "names": ["n" * 1000] * 200},
        context=[{"title": "t" * 9000, "summary": "s" * 9000}] * 50,
        continues="r" * 60_000,
    )
    story.add(kind="setup", commands=[{"output": "o" * 20_000}] * 64)
    assert len(asked(story, 32768)) < 50_000


def test_a_window_that_is_known_later_counts() -> None:
    story = Story()
    for number in range(12):
        story.did("run", f"{number} " + "x" * 4000, command=f"make {number}")
    run = story.run()
    assert isinstance(run.next(BEGAN), Ask)
    run.resize(4096)
    assert isinstance(run.next(BEGAN), Note)


def test_a_record_stays_small_whatever_its_text_and_calls_are_together() -> None:
    said = reply(call("write", path="a", text="\x01" * 120_000), text="\x01" * 64 * 1024)
    assert len(orjson.dumps(reply_record(1, said))) < 1024 * 1024


def test_a_long_text_of_a_call_stays_whole() -> None:
    record = reply_record(1, reply(call("write", path="a", text="x" * 200_000)))
    assert record["calls"][0]["arguments"]["text"] == "x" * 200_000

"""What holds for any journal: a restart sees the same, every run ends, and no record breaks the loop."""

from __future__ import annotations

from typing import Any

from goal_journal import BEGAN, Story, call, reply, run_of, start
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.mind.run import Ask, Call, Discuss, Finish, Help, Note, Plan, Run, Summarise, Wait
from chorus.mind.run.records import discussed_record, note, plan_record, reply_record
from chorus.mind.thinking import Reply, ToolCall

NOW = BEGAN + 10

long_text = st.builds(lambda text, times: text * times, st.text(max_size=8), st.sampled_from([1, 100, 4000]))
calls = st.one_of(
    st.builds(lambda text: call("run", command=text), st.sampled_from(["ls", "pytest", "a" * 9000])),
    st.builds(lambda text: call("write", path="f", text=text), long_text),
    st.just(call("ask_peers", question="why?")),
    st.just(call("finish", summary="done")),
    st.builds(ToolCall, st.text(max_size=9), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2)),
)
replies = st.builds(
    lambda of, text, unreadable, finish: reply(*of, text=text, unreadable=unreadable, finish=finish),
    st.lists(calls, max_size=3),
    long_text,
    st.sampled_from(["", "", "no JSON"]),
    st.sampled_from(["stop", "length"]),
)
outcomes = st.tuples(st.booleans(), long_text)
words = st.one_of(st.none(), st.tuples(st.sampled_from(["person", "peer"]), st.text(max_size=40)))


def lives(
    model: list[Reply], ends: list[tuple[bool, str]], heard: list[Any], talks: bool, window: int
) -> tuple[list[dict[str, Any]], Run]:
    """A run from its start to its end, and its journal; every choice of the world is taken from the lists."""
    run = run_of(window=window, talks=talks)
    journal: list[dict[str, Any]] = []

    def write(record: dict[str, Any]) -> None:
        journal.append({"n": len(journal) + 1, "at": BEGAN, **record})
        run.apply(journal[-1])

    write(start(budget={"steps": 12, "tokens": None, "usd": None}))
    for turn in range(1000):
        said = heard[turn % len(heard)]
        if said is not None:
            write({"kind": "message", "id": f"m{turn}", "from": said[0], "name": "Ann", "text": said[1]})
        ok, text = ends[turn % len(ends)]
        match run.next(NOW):
            case Plan():
                write(plan_record(text, {}))
            case Discuss(plan=plan):
                write(discussed_record(plan, "agreed", "s1"))
            case Ask(step=step):
                write(reply_record(step, model[step % len(model)]))
            case Call(step=step, call=number):
                write({"kind": "outcome", "step": step, "call": number, "ok": ok, "text": text})
            case Help(id=id, step=step, call=number):
                advice = [{"name": "b", "message": text}] if ok else []
                write(
                    note(
                        "hint", id, text, advice=advice, **({"step": step, "call": number} if number else {})
                    )
                )
            case Summarise(upto=upto, plain=plain):
                write(note("summary", f"summary-{upto}", plain, upto=upto))
            case Note(record=record):
                write(record)
            case Finish(ended_by="finished", step=step, call=number) if not ok:
                write({"kind": "outcome", "step": step, "call": number, "ok": False, "text": text})
            case Finish(ended_by=ended_by):
                write({"kind": "end", "ended_by": ended_by, "reason": ""})
            case Wait(over=over):
                assert over
                return journal, run
    raise AssertionError("the run does not end")


@settings(deadline=None, max_examples=15)
@given(
    st.lists(replies, min_size=1, max_size=6),
    st.lists(outcomes, min_size=1, max_size=4),
    st.lists(words, min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([600, 4000, 32768]),
)
def test_a_run_ends_and_any_prefix_of_its_journal_is_all_there_is_to_know(
    model: list[Reply], ends: list[tuple[bool, str]], heard: list[Any], talks: bool, window: int
) -> None:
    journal, _ = lives(model, ends, heard, talks, window)
    lived = run_of(window=window, talks=talks)
    for length, record in enumerate(journal, 1):
        lived.apply(record)
        now = lived.next(NOW)
        if length % 5 == 0 or length == len(journal):
            assert run_of(*journal[:length], window=window, talks=talks).next(NOW) == now


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
KINDS = ("start", "setup", "plan", "reply", "outcome", "message", "note", "end", "odd")
NOTES = ("hint", "budget", "blanked", "summary", "fallback", "away")
FIELDS = (
    "id", "step", "call", "text", "ok", "upto", "kept", "advice", "calls", "from", "name", "word", "at",
    "budget", "timeout_s", "files", "context", "checks", "commands", "tokens_in", "usd", "exit_code", "goal",
)  # fmt: skip
records = st.builds(
    lambda kind, kind2, fields: {"kind": kind, "kind2": kind2, **fields},
    st.sampled_from(KINDS),
    st.sampled_from(NOTES),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6),
)


@settings(deadline=None, max_examples=40)
@given(st.booleans(), st.lists(records, max_size=6))
def test_no_record_breaks_the_loop(good_start: bool, odd: list[dict[str, Any]]) -> None:
    run = run_of(*([start()] if good_start else []))
    for record in odd:
        run.apply(record)
        run.next(NOW)


@settings(deadline=None, max_examples=50)
@given(json_values)
def test_any_arguments_of_a_call_can_be_journaled_and_answered(value: Any) -> None:
    for arguments in ({"command": value}, {"path": "a", "first": value}, {"pattern": "a", "regex": value}):
        for tool in ("run", "read", "search", "finish"):
            Story().reply(call(tool, **arguments)).run().next(NOW)

"""What a run tells becomes lines that are short and few, whatever it says."""

from __future__ import annotations

import io
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chorus.ctl.follow import TaskEvent
from chorus.ctl.live import Live
from chorus.ctl.report import patch_lines, result_lines
from chorus.ctl.story import LINE_MAX_CHARS, Line, Used, event_lines, talk_lines
from chorus.ctl.told import Told

from .test_hostile_text import EVIL, assert_harmless


def texts(event: str, data: dict[str, Any]) -> list[str]:
    return [line.text for line in event_lines(event, data)]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("run", {"command": "pytest -q"}, "run pytest -q"),
        ("run", {"command": "a\nb\nc"}, "run a (+2 lines)"),
        ("read", {"path": "a.py", "first": 3}, "read a.py"),
        ("edit", {"path": "a.py", "old": "x", "new": "y"}, "edit a.py"),
        ("search", {"pattern": "def f", "path": "src"}, "search def f in src"),
        ("finish", {"summary": "done"}, "finish done"),
        ("run", {}, "run"),
        ("other", {"x": [1]}, 'other {"x": [1]}'),
        ("run", "words", "run words"),
    ],
)
def test_a_call_is_one_line(tool: str, arguments: Any, said: str) -> None:
    call = {"call": 1, "tool": tool, "arguments": arguments}
    assert texts("step", {"step": 3, "call": call}) == [f"step 3: {said}"]


def test_of_output_the_end_is_shown() -> None:
    text = "\n".join(f"line {n}" for n in range(20)) + "\n\n"
    lines = texts("step", {"step": 1, "outcome": {"text": text, "ok": True, "exit_code": 0}})
    assert lines == ["  … 15 lines before", *(f"  line {n}" for n in range(15, 20))]
    assert texts("step", {"outcome": {"ok": False, "timed_out": True}}) == ["  timed out"]
    assert texts("step", {"outcome": {"ok": False, "text": "no such file"}}) == ["  no such file", "  failed"]


def test_tabs_of_others_are_spaces() -> None:
    for words in (
        texts("step", {"step": 1, "outcome": {"text": "1\tdef f():\n\treturn", "ok": True, "exit_code": 0}}),
        texts("step", {"step": 0, "plan": {"text": "1\tdef f():\n\treturn"}}),
        [line.text for line in talk_lines({"kind": "advice", "message": "1\tdef f():\n\treturn"})],
    ):
        first, second = words
        assert first.endswith("1       def f():")
        assert second == "          return"
    # Whoever names a file so does not hide it.
    call = {"tool": "read", "arguments": {"path": "a\tb"}}
    assert texts("step", {"step": 1, "call": call}) == ["step 1: read a\tb"]


def test_checks_show_the_output_of_those_that_failed() -> None:
    commands = [
        {"command": "a", "exit_code": 0, "duration_s": 0.25, "output": "much"},
        {"command": "b", "exit_code": 2, "output": "why"},
    ]
    lines = list(event_lines("step", {"step": 2, "checks": {"commands": commands}}))
    assert lines == [
        Line("good", "check passed (0.2 s): a"),
        Line("bad", "check failed with exit code 2: b"),
        Line("output", "  why"),
    ]


def test_what_was_used_counts_each_step_once() -> None:
    used = Used()
    reply = {"tokens_in": 10, "tokens_out": 2, "usd": 0.5}
    for step in (1, 2, 2):
        used.add("step", {"step": step, "reply": reply})
    used.add("step", {"step": 2, "call": {}})
    used.add("state", {"state": "running", "agent_id": "b"})
    assert (used.steps, used.tokens, used.usd) == (2, 24, 1.0)
    assert (used.state, used.agent) == ("running", "b")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([EVIL, "x" * 5000, "a\n" * 500, "1e9", "run", "search"])
    | st.sampled_from(["help", "alert", "record", "proposal"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["step", "reply", "call", "outcome", "checks", "setup", "plan", "note", "text", "tool",
                 "arguments", "command", "commands", "exit_code", "duration_s", "from", "name", "agent_id",
                 "message", "intent", "outcome", "kind", "rule", "question",
                 "state", "reason", "tokens_in", "usd", "path", "left_out", "files",
                 "size", "goal", "patch", "result", "unreadable", "output", "detail", "unchecked"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)  # fmt: skip
DICTS = ANYTHING.filter(lambda value: isinstance(value, dict))


@given(event=st.sampled_from(["state", "step", "message", "gap", "usage", "end", "x"]), data=DICTS)
def test_anything_makes_lines_that_are_short_and_few(event: str, data: dict[str, Any]) -> None:
    Used().add(event, data)
    told = Told()
    once = [*told.talk(data), *told.event(event, data), *told.result(data, None)]
    accounts = [*once, *talk_lines(data), *result_lines(data), *patch_lines(data, None)]
    assert len(accounts) < 1000
    assert all("\n" not in line.text or line.kind == "note" for line in event_lines(event, data))
    assert all(len(line.text) < 6 * LINE_MAX_CHARS for line in event_lines(event, data))


def events() -> list[TaskEvent]:
    told: list[tuple[str, dict[str, Any]]] = [
        ("state", {"state": "running", "agent_id": "b"}),
        ("step", {"step": 0, "plan": {"text": "look, then change"}}),
        ("step", {"step": 1, "reply": {"text": "", "tokens_in": 1200, "tokens_out": 34, "usd": 0.5}}),
        ("step", {"step": 1, "call": {"tool": "run", "arguments": {"command": "pytest [red]-q[/red]"}}}),
        ("step", {"step": 1, "outcome": {"ok": True, "exit_code": 1, "text": "1 failed"}}),
    ]
    return [TaskEvent(f"1-{n}", name, data) for n, (name, data) in enumerate(told, 1)]


def recorded(width: int = 100) -> tuple[Console, io.StringIO]:
    """A console that is a terminal and keeps what was written to it."""
    written = io.StringIO()
    return Console(file=written, force_terminal=True, width=width, color_system="standard"), written


def plain(written: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)


def test_the_live_view_shows_lines_and_what_is_going_on() -> None:
    console, written = recorded()
    live = Live({"budget": {"steps": 25}}, console)
    with live:
        for event in events():
            live.event(event)
        live.talk({"from": {"agent_id": "c"}, "intent": "objection", "message": "why?"})
        status = live.status()
        live._live.refresh()
    assert re.fullmatch(
        r"running on b · step 1 of 25 · 1,234 tokens · \$0\.5000 · 0:\d\d · Ctrl-C cancels", status
    )
    shown = plain(written.getvalue())
    for line in (
        "plan: look, then change",
        "step 1: run pytest [red]-q[/red]",
        "  1 failed",
        "c, objection: why?",
    ):
        assert line in shown
    assert "running on b · step 1 of 25" in shown


def test_the_live_view_lets_nobody_control_the_terminal() -> None:
    console, written = recorded(400)
    live = Live({"budget": EVIL}, console)
    with live:
        live.event(TaskEvent("1-1", "state", {"state": EVIL, "agent_id": EVIL}))
        for name in ("plan", "note"):
            live.event(TaskEvent("1-2", "step", {"step": EVIL, name: {"text": EVIL}}))
        live.event(TaskEvent("1-3", "step", {"call": {"tool": EVIL, "arguments": {"command": EVIL}}}))
        live.event(TaskEvent("1-4", "message", {"from": EVIL, "name": EVIL, "text": EVIL}))
        live.talk({"from": {"name": EVIL}, "intent": EVIL, "message": EVIL})
        live._live.refresh()
    assert "\x1b]" not in written.getvalue()
    assert "\x1b[2J" not in written.getvalue()
    # What is left without rich's own colours and moves of the cursor.
    assert_harmless(plain(written.getvalue()).replace("\r", ""))


def test_a_long_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = texts("step", {"step": 1, "call": {"tool": "run", "arguments": {"command": "x" * 10_000}}})
    assert len(line) < LINE_MAX_CHARS + 30
    assert orjson.dumps(line)

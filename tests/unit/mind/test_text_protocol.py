"""What a model that cannot call tools writes, and what is read of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.mind.text_protocol import as_text, read
from chorus.mind.thinking import ToolCall, Turn


def run(command: str) -> tuple[ToolCall, ...]:
    return (ToolCall("run", {"command": command}),)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("```bash\nls\n```", run("ls")),
        ("Look first.\n\n```bash\ncd a &&\nls\n```\nThen more.", run("cd a &&\nls")),
        ("```python\nx\n```\n```bash\nls\n```", run("ls")),
        ("````bash\ncat >a.md <<E\n```\ncode\n```\nE\n````", run("cat >a.md <<E\n```\ncode\n```\nE")),
        ("DONE\n```bash\nls\n```", run("ls")),
        ("```BASH\r\nls\r\n```\r\n", run("ls\r")),
        ("DONE\nIt works.\nReally.", (ToolCall("finish", {"summary": "It works.\nReally."}),)),
        ("\n DONE \n", (ToolCall("finish", {"summary": ""}),)),
    ],
)
def test_what_is_read(text: str, calls: tuple[ToolCall, ...]) -> None:
    assert read(text) == (calls, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("I am done.\nDONE", "neither a bash block nor DONE"),
        ("DONE it works", "neither"),
        ("```python\nprint()\n```", "neither"),
        ("```\nls\n```", "neither"),
        ("```bash\na\n```\n```bash\nb\n```", "2 bash blocks"),
        ("```bash\nls", "has no end"),
        ("```bash\n \n```", "is empty"),
    ],
)
def test_what_is_answered_with_what_was_expected(text: str, why: str) -> None:
    calls, unreadable = read(text)
    assert calls == ()
    assert why in unreadable
    assert "```bash" in unreadable
    assert "DONE" in unreadable


@given(st.text())
def test_any_text_is_a_call_or_told_to_be_none(text: str) -> None:
    calls, unreadable = read(text)
    assert bool(calls) != bool(unreadable)


@given(st.text(st.characters(exclude_characters="\r"), min_size=1).filter(str.strip))
def test_a_call_in_words_is_read_as_that_call(command: str) -> None:
    [said] = [turn for turn in as_text([Turn("assistant", "", run(command))]) if turn.role == "assistant"]
    assert read(said.text) == (run(command), "")


def test_a_conversation_in_words() -> None:
    turns = [
        Turn("system", "You work."),
        Turn("user", "Goal."),
        Turn("assistant", "```bash\nls\n```", run("ls")),
        Turn("tool", "a b", tool="run"),
        Turn("user", "A person says: hurry."),
        Turn("assistant", "", (ToolCall("read", {"path": "a"}),)),
        Turn("tool", "text", tool="read"),
    ]
    said = as_text(turns)
    assert [turn.role for turn in said] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert said[0].text.startswith("You work.\n\n")
    assert said[2].text == "```bash\nls\n```"
    assert said[3].text == "a b\n\nA person says: hurry."
    assert said[4].text == 'read {"path":"a"}'
    assert said[5].text == "read:\ntext"
    assert as_text(turns[1:])[0].role == "system"


def test_done_beside_a_block_is_not_done() -> None:
    calls, problem = read("DONE\n```python\nprint(1)\n```")
    assert calls == ()
    assert "has a block" in problem

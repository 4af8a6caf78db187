"""Texts count in whole words: no "1 files"."""

from __future__ import annotations

import pytest

from chorus.ctl.report import patch_lines
from chorus.ctl.story import talk_lines
from chorus.executor.summary import Facts, compose
from chorus.wire.counts import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (None, "None files")]
)
def test_one_is_one(number: object, said: str) -> None:
    assert counted(number, "file") == said


def test_plurals_that_are_no_s() -> None:
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


def test_a_goal_of_one_step_and_one_file() -> None:
    goal = {"steps": 1, "patch": {"files": 1}, "unchecked": False}
    said = compose(Facts(is_goal=True, ended_by="finished", goal=goal, output={"stdout": 1}, artifacts=1))
    for words in ("in 1 step and", "1 file changed.", "1 byte of output.", "1 artifact kept."):
        assert words in said


def test_one_line_and_one_byte_in_what_ask_shows() -> None:
    assert [line.text for line in patch_lines({"files": 1, "size": 1}, None)] == ["patch: 1 file, 1 byte"]
    advice = {"kind": "advice", "from": {"agent_id": "b"}, "message": "line\n" * 13}
    assert [line.text for line in talk_lines(advice)][-1] == "  … 1 line more"

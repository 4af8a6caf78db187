"""Arguments that a model wrote, against the schemas of its tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.mind import written_calls
from chorus.mind.arguments import NONE_DONE, check
from chorus.mind.thinking import ToolCall, ToolSpec

READ = ToolSpec(
    "read",
    "",
    {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "first": {"type": "integer", "minimum": 1},
            "share": {"type": "number"},
            "all": {"type": "boolean"},
            "names": {"type": "array", "items": {"type": "string"}},
            "kind": {"type": "string", "enum": ["a", "b"]},
        },
        "required": ["path"],
    },
)


def checked(**arguments: Any) -> tuple[tuple[ToolCall, ...], str]:
    return check([("read", json.dumps(arguments))], [READ])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"first": 3}, {"first": 3}),
        ({"first": "3"}, {"first": 3}),
        ({"first": 3.0}, {"first": 3}),
        ({"first": None}, {}),
        ({"share": 1}, {"share": 1}),
        ({"share": "0.5"}, {"share": 0.5}),
        ({"all": "True"}, {"all": True}),
        ({"names": ["a"]}, {"names": ["a"]}),
        ({"kind": "b"}, {"kind": "b"}),
    ],
)
def test_values_that_mean_the_same(written: dict[str, Any], meant: dict[str, Any]) -> None:
    assert checked(path="p", **written) == ((ToolCall("read", {"path": "p", **meant}),), "")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({}, "read: path is missing"),
        ({"path": None}, "read: path is missing"),
        ({"path": 3}, "read: path: expected text, not '3'"),
        ({"path": "p", "first": 0}, "first: expected a whole number of at least 1"),
        ({"path": "p", "first": "x"}, "first: expected a whole number"),
        ({"path": "p", "first": True}, "first: expected a whole number"),
        ({"path": "p", "all": 1}, "all: expected true or false"),
        ({"path": "p", "names": [1]}, "names: expected a list"),
        ({"path": "p", "kind": "c"}, "kind: expected a or b, not 'c'"),
        ({"path": "p", "colour": 1}, "there is no argument 'colour'; the arguments are: path, first"),
    ],
)
def test_what_is_wrong_is_named(written: dict[str, Any], problem: str) -> None:
    calls, unreadable = check([("read", json.dumps(written))], [READ])
    assert calls == ()
    assert problem in unreadable
    assert unreadable.endswith(NONE_DONE)


def test_one_bad_call_stops_the_others_and_all_are_named() -> None:
    calls, unreadable = check([("read", '{"path": "a"}'), ("fly", "{}"), ("read", "[]")], [READ])
    assert calls == ()
    assert "there is no tool 'fly'; the tools are: read" in unreadable
    assert "read: the arguments are no JSON object" in unreadable


@given(st.text(max_size=20), st.text(max_size=60) | st.from_regex(r'\{"path": .{0,20}\}', fullmatch=True))
def test_whatever_is_written_is_a_call_or_named(name: str, arguments: str) -> None:
    for tool in (name, "read"):
        calls, unreadable = check([(tool, arguments)], [READ])
        assert bool(calls) != bool(unreadable)
    written_calls.find(arguments, [READ])


def test_arguments_nested_as_deep_as_json_goes_are_said_to_be_wrong() -> None:
    deep = '{"command": ' + "[" * 1000 + "]" * 1000 + "}"
    good, problem = check(
        [("run", deep)], [ToolSpec("run", "", {"properties": {"command": {"type": "string"}}})]
    )
    assert good == ()
    assert "command" in problem

"""The task as submitted: what is taken, what is refused and how that is said."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.table.reader import shown
from chorus.table.submitted import SubmittedGoal, SubmittedTask
from chorus.wire.ids import encode, heard_task_id, is_id, new_id
from chorus.wire.messages import MESSAGES
from chorus.wire.offload import offload, source_sha256
from chorus.wire.source import Source
from chorus.wire.task import (
    GOAL_FIELDS,
    TaskInvalid,
    TaskSubmission,
    check_entry_size,
    parse_task,
)
from chorus.wire.times import TIME_MAX_MS, rfc3339

# Other work shares the machine: how long an example takes says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def test_only_the_title_is_required() -> None:
    task = parse_task({"title": "x"})
    assert (task.priority, task.timeout_s, task.max_attempts, task.network) == (5, 900, 3, "none")
    assert parse_task(orjson.loads(orjson.dumps(task.body()))) == task


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"title": ""}, "title", "at least 1"),
    ({"title": "x" * 201}, "title", "at most 200"),
    ({"description": "x" * (64 * 1024 + 1)}, "description", "65536"),
    ({"commands": ["x"] * 65}, "commands", "at most 64"),
    ({"commands": ["x" * (16 * 1024 + 1)]}, "commands.0", "16384"),
    ({"commands": ["a\0b"]}, "commands.0", "zero byte"),
    ({"commands": "true"}, "commands", "tuple"),
    ({"colour": "red"}, "colour", "unknown field"),
    ({"priority": 11}, "priority", "less than or equal to 10"),
    ({"timeout_s": 0}, "timeout_s", "greater than 0"),
    ({"timeout_s": float("nan")}, "timeout_s", "finite"),
    ({"env": {"A B": "x"}}, "env", "'A B' is not a name"),
    ({"env": {"A": "x"}, "secrets": {"A": "y"}}, "secrets", "stands in env too"),
    ({"workdir": "../x"}, "workdir", "inside the workspace"),
    ({"artifacts": ["/etc/passwd"]}, "artifacts.0", "inside the workspace"),
    ({"network": "egress"}, "network", "not supported yet"),
    ({"idempotency_key": "k"}, "idempotency_key", "not supported yet"),
    ({"start_by": "2024-01-01T00:00:00"}, "start_by", "timezone"),
    ({"task_id": "x"}, "task_id", "pattern"),
    ({"depends_on": ["x"]}, "depends_on.0", "pattern"),
    ({"task_id": "0" * 26, "depends_on": ["0" * 26]}, "depends_on", "cannot wait for itself"),
    ({"source": {"kind": "git", "url": "https://x/y"}}, "source", "git sources are not supported yet"),
    ({"source": {"kind": "archive", "url": "https://x/y"}}, "source", "not supported yet"),
    ({"source": {"kind": "inline", "files": {"../x": ""}}}, "source.files", "inside the workspace"),
    ({"source": {"kind": "inline", "files": {"a": "", "a/b": ""}}}, "source.files", "another file"),
    ({"source": {"kind": "inline", "files": {"d/" + "é" * 128: ""}}}, "source.files", "255 bytes"),
    ({"source": {"kind": "blob", "sha256": "xyz"}}, "source.sha256", "pattern"),
    ({"resources": {"cpus": 0}}, "resources.cpus", "greater than 0"),
    ({"setup": ["x"] * 65}, "setup", "at most 64"),
    ({"checks": [""]}, "checks.0", "at least 1"),
    ({"checks": ["x" * (16 * 1024 + 1)]}, "checks.0", "16384"),
    ({"protected": ["../x"]}, "protected.0", "inside the workspace"),
    ({"budget": {"steps": 0}}, "budget.steps", "greater than or equal to 1"),
    ({"budget": {"steps": 10_001}}, "budget.steps", "less than or equal to 10000"),
    ({"budget": {"tokens": 0}}, "budget.tokens", "greater than or equal to 1"),
    ({"budget": {"usd": 0}}, "budget.usd", "greater than 0"),
    ({"budget": {"usd": float("inf")}}, "budget.usd", "finite"),
    ({"budget": {"hours": 1}}, "budget.hours", "unknown field"),
    ({"budget": 3}, "budget", "dictionary"),
    ({"required_model": "x" * 65}, "required_model", "at most 64"),
    ({"local_model": "very"}, "local_model", "boolean"),
    ({"continues": "x"}, "continues", "pattern"),
    ({"task_id": "0" * 26, "continues": "0" * 26}, "continues", "cannot continue itself"),
]


@pytest.mark.parametrize(
    ("fields", "place", "what"), REFUSED, ids=[f"{p or w} {n}" for n, (_, p, w) in enumerate(REFUSED)]
)
def test_refused_by_name(fields: dict[str, Any], place: str, what: str) -> None:
    with pytest.raises(TaskInvalid) as refused:
        parse_task({"title": "t", **fields})
    assert any(found.startswith(place) and what in said for found, said in refused.value.problems), (
        refused.value.problems
    )


def test_a_folder_of_artifacts_may_be_written_as_people_do() -> None:
    task = parse_task({"title": "t", "artifacts": ["./out/", "out", "./*.xml"]})
    assert task.artifacts == ("out", "out", "*.xml")


def test_all_mistakes_at_once() -> None:
    with pytest.raises(TaskInvalid) as refused:
        parse_task({"priority": -1, "x": 1})
    assert {place for place, _ in refused.value.problems} == {"title", "priority", "x"}


@UNHURRIED
@given(
    JSON
    | st.fixed_dictionaries({"title": JSON, "source": JSON, "commands": JSON, "env": JSON})
    | st.fixed_dictionaries({"title": st.just("t")}, optional=dict.fromkeys(GOAL_FIELDS, JSON))
)
def test_no_json_breaks_it(value: object) -> None:
    with suppress(TaskInvalid):
        parse_task(value)


def test_large_parts_become_blobs() -> None:
    files = {"a/b.txt": "x" * 70_000, "c.txt": "y"}
    task = parse_task({"title": "t", "source": {"kind": "inline", "files": files}, "stdin": "z" * 70_000})
    with pytest.raises(TaskInvalid, match="blob first"):
        check_entry_size(task)
    small = offload(task)
    check_entry_size(small.task)
    assert len(small.blobs) == 2
    assert len(small.task.blobs) == 2
    assert offload(task) == small
    assert parse_task(small.task.body()) == small.task
    plain = parse_task({"title": "t", "stdin": "z"})
    assert offload(plain).task is plain


def test_an_entry_has_a_size() -> None:
    with pytest.raises(TaskInvalid, match="in all"):
        check_entry_size(TaskSubmission(title="t", commands=("x" * 16_000,) * 20))


def test_an_archive_is_named_by_its_hash_before_it_is_submitted() -> None:
    task = parse_task({"title": "t", "source": {"kind": "archive"}})
    with pytest.raises(TaskInvalid, match="sha256"):
        check_entry_size(task)


def test_ids() -> None:
    assert encode(bytes(16)) == "0" * 26
    assert encode(b"\xff" * 16) == "7" + "Z" * 25
    assert new_id(1, bytes(10)) < new_id(2, bytes(10))
    assert is_id(new_id())
    assert not is_id("x")
    assert heard_task_id("peer", 1) == heard_task_id("peer", 1) != heard_task_id("peer", 2)
    assert is_id(heard_task_id("peer", 1))


def test_times() -> None:
    assert rfc3339(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"


def test_every_topic_of_the_protocol_has_its_messages() -> None:
    assert {topic: len(types) for topic, types in MESSAGES.items()} == {
        "chorus/tasks": 2,
        "chorus/coordination/v1": 11,
        "hmmm/meta-discussion/v1": 4,
        "chorus/election/v1": 6,
        "chorus/decisions": 2,
        "chorus/health": 1,
    }


def test_a_source_has_one_hash_inline_and_as_a_blob() -> None:
    small = Source(kind="inline", files={"b": "2", "a": "1"})
    large = parse_task({"title": "t", "source": {"kind": "inline", "files": {"a": "x" * 70_000}}})
    assert source_sha256(None) == ""
    assert source_sha256(small) == source_sha256(Source(kind="inline", files={"a": "1", "b": "2"}))
    offloaded = offload(large).task.source
    assert offloaded is not None
    assert source_sha256(large.source) == source_sha256(offloaded) == offloaded.sha256


@pytest.mark.parametrize("field", ["start_by", "submitted_at"])
@pytest.mark.parametrize(
    "time", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "9999-01-01T00:00:00Z", -1]
)
def test_times_have_bounds(field: str, time: object) -> None:
    with pytest.raises(TaskInvalid, match=f"{field}: give a time of the years 1970 to 9998"):
        parse_task({"title": "t", field: time})


def test_times_travel_in_entries_as_whole_milliseconds() -> None:
    task = parse_task({"title": "t", "start_by": "2023-11-14T23:13:20.007+01:00"})
    assert task.entry()["start_by"] == 1_700_000_000_007
    assert task.entry()["submitted_at"] is None
    assert (
        parse_task({"title": "t", "start_by": "9998-12-31T23:59:59.999Z"}).entry()["start_by"] == TIME_MAX_MS
    )


@pytest.mark.parametrize("field", ["title", "description", "workdir", "stdin"])
def test_half_a_surrogate_pair_is_no_text(field: str) -> None:
    with pytest.raises(TaskInvalid, match=field):
        parse_task({"title": "t", field: "a\ud800"})
    for more in ({"env": {"A": "\ud800"}}, {"source": {"kind": "inline", "files": {"a": "\ud800"}}}):
        with pytest.raises(TaskInvalid):
            parse_task({"title": "t", **more})


def test_what_cannot_be_written_as_a_time_is_shown_as_the_nearest() -> None:
    assert rfc3339(-1) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(2**63) == "9999-12-31T23:59:59.999Z"


# A value of each field that a goal alone may set.
OF_A_GOAL: dict[str, Any] = {
    "setup": ["pip install -e ."],
    "checks": ["pytest -q", "ruff check"],
    "protected": ["tests/**"],
    "budget": {"steps": 12, "tokens": 50_000, "usd": 0.5},
    "required_model": "qwen2.5-coder:1.5b",
    "local_model": True,
    "continues": "1" * 26,
}


@pytest.mark.parametrize("field", GOAL_FIELDS)
def test_a_field_of_goals_beside_commands_is_refused_by_name(field: str) -> None:
    assert OF_A_GOAL.keys() == set(GOAL_FIELDS)
    assert parse_task({"title": "t", field: OF_A_GOAL[field]}).is_goal
    with pytest.raises(TaskInvalid) as refused:
        parse_task({"title": "t", "commands": ["true"], field: OF_A_GOAL[field]})
    assert refused.value.problems == [(field, "only for a goal, which is a task without commands")]


def test_a_task_with_commands_travels_as_releases_without_goals_know_it() -> None:
    defaults = {"setup": [], "budget": {}, "continues": None, "local_model": False}
    task = parse_task({"title": "t", "commands": ["true"], **defaults})
    assert not task.is_goal
    assert task.goal == ""
    assert tuple(task.body()) == tuple(task.entry()) == tuple(SubmittedTask.model_fields)


def test_a_goal_in_words_is_its_description_or_else_its_title() -> None:
    assert parse_task({"title": "Fix it"}).goal == "Fix it"
    assert parse_task({"title": "Fix it", "description": "The test fails."}).goal == "The test fails."


def test_the_tables_schema_reads_a_goal_as_http_takes_it() -> None:
    """A field that HTTP gains needs a new version of the table's schema."""
    assert SubmittedGoal.model_fields.keys() == TaskSubmission.model_fields.keys()
    task = parse_task({"title": "t", "start_by": "2026-01-01T00:00:00Z", **OF_A_GOAL})
    kept = SubmittedGoal.model_validate(orjson.loads(orjson.dumps(task.entry()))).body("0" * 26)
    assert kept == {**task.entry(), "task_id": "0" * 26}
    assert parse_task(shown(kept)) == task.model_copy(update={"task_id": "0" * 26})


def test_the_tables_schema_reads_a_task_with_commands_as_http_takes_it() -> None:
    assert SubmittedTask.model_fields.keys() == TaskSubmission.model_fields.keys() - set(GOAL_FIELDS)
    task = parse_task(
        {
            "title": "t", "commands": ["true"], "source": {"kind": "inline", "files": {"a": "b"}},
            "env": {"A": "1"}, "artifacts": ["*.xml"], "resources": {"cpus": 2}, "timeout_s": 1,
            "start_by": "2026-01-01T00:00:00Z",
        }
    )  # fmt: skip
    kept = SubmittedTask.model_validate(orjson.loads(orjson.dumps(task.entry()))).body("0" * 26)
    assert kept == {**task.entry(), "task_id": "0" * 26}
    assert parse_task(shown(kept)) == task.model_copy(update={"task_id": "0" * 26})

"""The rules for goals: how one begins, comes back and ends, and what members say of their models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from table_mesh import STRANGER, T1, T2, T3, A, B, C, Log
from test_bringing_along import bring, check_whole, lines_of, recovered, table

from chorus.table.entry_types import OF_THE_CORE, PROPOSABLE, SINCE
from chorus.table.members import TABLE_VERSION
from chorus.table.reader import TableReader
from chorus.table.records import Body, Member, Superseded
from chorus.table.store import TableStore
from chorus.table.view import view

MODEL = {"provider": "ollama", "model": "qwen2.5-coder:1.5b", "local": True}
PATCH = {"sha256": "b" * 64, "size": 321, "files": 1, "left_out": [{"path": "target", "reason": "built"}]}
REPORT: dict[str, Any] = {
    "provider": "ollama", "model": "m", "prompts_sha256": "a" * 64, "steps": 3, "calls": 4, "tokens_in": 400,
    "tokens_out": 30, "usd": 0.25, "model_s": 12.5, "unchecked": False,
    "checks": [{"command": "pytest -q", "exit_code": 0, "duration_s": 1.25}], "patch": PATCH,
    "transcript_sha256": "c" * 64, "discussion": None,
}  # fmt: skip


@pytest.fixture
def log() -> Log:
    log = Log()
    log.raise_version()
    return log


def test_every_type_of_the_list_has_a_version_that_this_release_knows() -> None:
    assert SINCE.keys() < PROPOSABLE | OF_THE_CORE
    assert set(SINCE.values()) == set(range(2, TABLE_VERSION + 1))


@pytest.mark.parametrize("type", [name for name, since in SINCE.items() if since == 3])
def test_goals_count_from_version_3_on(type: str) -> None:
    log = Log()
    log.raise_version(to=2)
    assert log.say(B, type).reason.startswith("unknown: this version")
    log.raise_version(to=3)
    assert log.say(B, type).reason.startswith("the body does not fit")


def test_a_goal_is_kept_with_its_fields(log: Log) -> None:
    assert log.goal(checks=["true"], budget={"steps": 5}, submitted_by="alice").accepted
    body = log.view.get(Body, T1)
    assert body is not None
    assert (body.task["commands"], body.task["checks"], body.task["protected"]) == ([], ["true"], [])
    assert body.task["budget"] == {"steps": 5, "tokens": None, "usd": None}
    assert (log.task().state, log.task().submitted_by) == ("announced", "alice")


UNFIT: list[tuple[str, dict[str, Any]]] = [
    ("commands", {"commands": ["true"]}),
    ("checks", {"checks": ["x"] * 65}),
    ("setup", {"setup": "true"}),
    ("protected", {"protected": ["/etc"]}),
    ("budget", {"budget": {"steps": 0}}),
    ("budget", {"budget": {"steps": 1.5}}),
    ("budget", {"budget": {"hours": 1}}),
    ("required_model", {"required_model": "x" * 65}),
    ("local_model", {"local_model": 1}),
    ("continues", {"continues": "x"}),
]


@pytest.mark.parametrize(("field", "task"), UNFIT, ids=[f"{n} {f}" for n, (f, _) in enumerate(UNFIT)])
def test_a_goal_that_does_not_fit_is_refused_by_its_field(log: Log, field: str, task: dict[str, Any]) -> None:
    assert log.goal(**task).reason == f"invalid: task.{field}: not a value of this field"


def test_a_task_with_commands_has_no_fields_of_goals(log: Log) -> None:
    assert log.submit(checks=["true"]).reason == "invalid: task: not a value of this field"


def test_only_what_has_ended_can_be_continued(log: Log) -> None:
    assert log.goal(T2, continues=T1).reason == f"invalid: task.continues: there is no task {T1}"
    log.goal(T1)
    assert log.goal(T2, continues=T1).reason == f"invalid: task.continues: task {T1} has not ended"
    assert log.goal(T2, continues=T2).reason == f"invalid: task.continues: there is no task {T2}"
    log.run()
    log.goal_result()
    assert log.goal(T2, continues=T1).accepted


def test_a_result_of_a_goal_says_what_the_model_did(log: Log, tmp_path: Path) -> None:
    log.goal()
    log.run()
    assert log.goal_result(ended_by="checks", outcome="failed", goal=REPORT).accepted
    assert log.task().state == "failed"
    store = TableStore(tmp_path / "table.sqlite")
    store.apply_batch(log.entries)
    reader = TableReader(tmp_path / "table.sqlite")
    row = reader.task(T1)
    assert row is not None
    shown = view(row)["result"]
    patch = {**PATCH, "left_out": [{"path": "target", "reason": "built"}]}
    assert (shown["ended_by"], shown["goal"], shown["patch"]) == ("checks", REPORT, patch)
    reader.close()
    store.close()


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("ended_by", {"ended_by": "dreams"}),
        ("goal", {"goal": None}),
        ("goal", {"goal": {**REPORT, "usd": -1}}),
        ("goal", {"goal": {**REPORT, "patch": {**PATCH, "sha256": "x"}}}),
        ("goal", {"goal": {**REPORT, "checks": [{}]}}),
    ],
)
def test_a_result_that_does_not_fit_is_refused(log: Log, field: str, more: dict[str, Any]) -> None:
    log.goal()
    log.run()
    assert log.goal_result(**more).reason == f"the body does not fit: {field}: not a value of this field"
    assert log.task().state == "running"


def test_a_task_with_commands_takes_no_result_of_a_goal_and_is_not_given_back(log: Log) -> None:
    log.submit()
    log.run()
    assert log.goal_result().reason == "only of a task without commands"
    assert log.say(C, "give_back", task_id=T1, attempt=1).reason == "only of a task without commands"
    assert log.task().state == "running"


def test_a_goal_of_an_earlier_release_ends_as_one_of_this(log: Log) -> None:
    log.submit(commands=[])
    log.run()
    assert log.goal_result().accepted


def test_a_goal_given_back_is_not_counted(log: Log) -> None:
    log.goal(max_attempts=1)
    for attempt in (1, 2, 3):
        log.run(attempt=attempt)
        refused = log.say(B, "give_back", task_id=T1, attempt=attempt)
        assert refused.reason == "only the attempt's executor reports on it"
        assert log.say(C, "give_back", task_id=T1, attempt=attempt, reason="its model is away").accepted
        task = log.task()
        assert (task.state, task.reason, task.agent, task.lost) == (
            "announced",
            "its model is away",
            None,
            0,
        )
        assert (log.attempt(attempt).state, log.attempt(attempt).finished_at) == ("released", log.stamp)
    assert log.say(C, "give_back", task_id=T1, attempt=3).reason == "the attempt is released"
    # What it gave back it has no result of.
    assert log.goal_result(attempt=3).reason == "superseded: the attempt is released"


def test_a_second_result_of_a_goal_is_superseded_whole(log: Log) -> None:
    log.goal()
    log.run()
    log.goal_result(goal=REPORT)
    assert log.goal_result(goal=REPORT).reason == "superseded: the task is completed"
    late = log.view.get(Superseded, T1, 1, C)
    assert late is not None
    assert late.result["goal"]["tokens_in"] == 400


def test_a_member_says_which_models_it_has(log: Log, tmp_path: Path) -> None:
    outcome = log.say(C, "models", models=[MODEL], reason="the second provider is away")
    assert outcome.accepted
    assert outcome.members
    assert log.say(STRANGER, "models", models=[MODEL]).reason == "the author is not a member"
    assert "models" in log.say(B, "models", models=[MODEL] * 65).reason
    # What it says of itself otherwise leaves them alone.
    log.say(C, "member", agent_id="sea", table_version=3)
    with table(log.entries) as store:
        reader = TableReader(store.path)
        row = reader.member(C)
        reader.close()
    assert row is not None
    assert (row.agent_id, row.models, row.model_reason) == ("sea", (MODEL,), "the second provider is away")
    log.say(C, "models", models=[], reason="away")
    member = log.view.get(Member, C)
    assert member is not None
    assert (member.models, member.model_reason) == ((), "away")
    log.remove(C)
    log.say(A, "join", peer=C, agent_id="c")
    member = log.view.get(Member, C)
    assert member is not None
    assert member.model_reason == ""


def goals() -> Log:
    """A mesh whose goals have ended, been lost and gone on, beside a task with commands."""
    log = Log()
    log.raise_version()
    log.goal(T1, checks=["true"], budget={"usd": 0.5})
    log.run(T1)
    log.say(A, "reoffer", task_id=T1, attempt=1, reason="the lease is over")
    log.run(T1, agent=B, attempt=2)
    log.goal_result(C, T1, 1, goal=REPORT)
    log.goal_result(B, T1, 2, goal=REPORT, ended_by="finished")
    log.goal(T2, continues=T1)
    log.run(T2)
    log.say(C, "give_back", task_id=T2, attempt=1, reason="away")
    log.run(T2, attempt=2)
    log.submit(T3)
    return log


def test_goals_are_brought_along_whole() -> None:
    check_whole(goals().entries)
    log = recovered()
    lines = lines_of(goals())
    assert {line.type: line.subject for line in lines if line.subject in (T1, T2, T3)} == {
        "import_goal": T2,
        "import_task": T3,
    }
    bring(log, lines)
    result = log.attempt(2).result
    assert result is not None
    assert result["goal"] == REPORT


def test_a_mesh_of_an_earlier_version_takes_tasks_and_waits_for_the_goals() -> None:
    log = Log(found=False)
    log.say(A, "found", mesh="m2", agent={"agent_id": "a", "max_tasks": 3}, recovers=["m1"])
    log.say(A, "leader", term=1)
    log.raise_version(A, to=2)
    refused = bring(log, lines_of(goals()))
    assert refused.count("unknown: this version of the table has no entries of that type") == 2
    assert log.task(T3).state == "announced"


def test_a_task_without_commands_of_earlier_releases_is_brought_as_they_know_it(log: Log) -> None:
    log.submit(T1, commands=[])
    log.submit(T2, commands=[])
    log.run(T2)
    log.goal_result(task_id=T2)
    types = {line.subject: line.type for line in lines_of(log) if line.subject in (T1, T2)}
    assert types == {T1: "import_task", T2: "import_goal"}
    new = recovered()
    bring(new, lines_of(log))
    assert new.task(T2).state == "completed"

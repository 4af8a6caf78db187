"""Topics of roles, expertise and supervisors: who is on them, what is announced there, what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, World, fresh_id, world
from hypothesis import given
from hypothesis import strategies as st

from chorus.config import Assignment
from chorus.coordinator import declines
from chorus.coordinator.declines import Rate, reason_of
from chorus.coordinator.gossip import for_topic
from chorus.coordinator.role_topics import topics_of
from chorus.table.records import Body, Member
from chorus.wire.messages import COORDINATION
from chorus.wire.task import TaskInvalid, parse_task

ROLE, RUST = "chorus/role/reviewer", "chorus/expertise/rust"


def test_the_topics_of_an_agent() -> None:
    assert topics_of(Assignment(), "a", supervises=False) == frozenset()
    assignment = Assignment(role="reviewer", expertise=("rust", "go"), reports_to="lead")
    assert topics_of(assignment, "a", supervises=True) == {
        ROLE, RUST, "chorus/expertise/go", "chorus/reports/lead", "chorus/reports/a",
    }  # fmt: skip


def test_a_task_on_such_a_topic_is_for_those_only() -> None:
    task = parse_task({"title": "t", "required_expertise": ["go"]})
    assert for_topic(task, "chorus/tasks") == task
    assert for_topic(task, ROLE).required_role == "reviewer"
    assert for_topic(task, RUST).required_expertise == ("go", "rust")
    assert for_topic(task, "chorus/expertise/go").required_expertise == ("go",)
    with pytest.raises(TaskInvalid, match="required_role"):
        for_topic(parse_task({"title": "t", "required_role": "admin"}), ROLE)
    full = parse_task({"title": "t", "required_expertise": [f"e{n}" for n in range(64)]})
    with pytest.raises(TaskInvalid, match="required_expertise"):
        for_topic(full, RUST)


# What is said of a refusal


def invalid(data: Any) -> str:
    with pytest.raises(TaskInvalid) as caught:
        parse_task(data)
    return reason_of(caught.value, data)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "title"),
        ({"title": 5}, "title"),
        ({"title": "t", "timeout_s": -1}, "timeout_s"),
        ({"title": "t", "network": "egress"}, "network"),
        ({"title": "t", "hunter2hunter2": 1}, "hunter2hunter2"),
        ({"title": "t", "env": {"not a name": "x"}}, "env"),
        ({"title": "t", "env": {"OPTIND": "opened sesame"}}, "env"),
        ({"title": "t", "resources": {"cpus": -1}}, "resources.cpus"),
        ({"title": "t", "source": {"kind": "inline", "files": {"../up": "x"}}}, "source.files"),
        ({"title": "t", "idempotency_key": "mine"}, "idempotency_key"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_a_refusal_names_field_and_remedy(data: Any, field: str) -> None:
    said = invalid(data)
    assert said.startswith(f"{field}: ")
    for value in ("egress", "not a name", "opened sesame", "../up", "mine"):
        assert value not in said
    # Something to do, besides what is wrong.
    assert "; " in said or any(
        said.endswith(what) for what in (*declines._REMEDIES.values(), declines._USUAL)
    )


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(WORDS, inner)


# No sentence of ours holds the bracket, so that what is found of a value comes from the announcement.
WORDS = st.text(min_size=3).map(lambda text: f"\u27e6{text}")
FIELDS = ["title", "env", "secrets", "source", "commands", "depends_on", "language", "network"]


@given(st.dictionaries(st.sampled_from(FIELDS), st.recursive(WORDS, nested, max_leaves=8)))
def test_no_refusal_holds_a_value(data: dict[str, Any]) -> None:
    try:
        parse_task(data)
    except TaskInvalid as error:
        said = reason_of(error, data)
        assert len(said) <= declines.REASON_MAX_CHARS
        assert "\u27e6" not in said


def test_a_signer_is_answered_once_a_second_and_all_together_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rate = Rate()
    assert rate.take("x", 10.0)
    assert not rate.take("x", 10.9)
    assert rate.take("x", 11.0)
    many = [rate.take(f"signer {n}", 20.0) for n in range(100)]
    assert sum(many) == declines.AT_ONCE_MAX
    assert rate.take("signer 99", 21.0)
    rate = Rate()
    monkeypatch.setattr(declines, "SIGNERS_MAX", 3)
    for n in range(10):
        rate.take(f"later {n}", 100.0 + n)
    assert len(rate._last) == 3


# In a mesh


def heard(w: World, type: str, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """What was published with these fields: (topic, data)."""
    return [
        (topic, data)
        for _, topic, kind, data in w.mesh.published
        if kind == type and all(data.get(name) == value for name, value in fields.items())
    ]


def on(agent: Agent, *topics: str) -> Callable[[], bool]:
    return lambda: agent.parts.role_topics.joined == frozenset(topics)


async def test_topics_are_joined_and_left_by_one_call(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        a, b, c = w["a"], w["b"], w["c"]
        assert b.parts.role_topics.joined == frozenset()
        b.assign(role="reviewer", expertise=("rust",), reports_to="c")
        await b.until(on(b, ROLE, RUST, "chorus/reports/c"), "joined")
        # Whom it reports to hears it and joins, nobody else does.
        await c.until(on(c, "chorus/reports/c"), "the supervisor joined")
        await a.until(lambda: (m := a.parts.store.get(Member, b.peer)) is not None and m.role == "reviewer")
        said = heard(w, "capability_broadcast", agent_id="b", role="reviewer", reports_to="c")
        assert [topic for topic, _ in said] == [COORDINATION]
        listening = b.parts.role_topics._listening[RUST]
        b.assign(role="", reports_to="")
        await b.until(on(b, RUST), "left")
        # What stayed was not disturbed.
        assert b.parts.role_topics._listening[RUST] is listening
        await c.until(on(c), "the supervisor left")


@pytest.mark.parametrize("leader_is_on_it", [True, False])
async def test_a_task_on_a_role_topic_runs_on_that_role_only(tmp_path: Path, leader_is_on_it: bool) -> None:
    async with world(tmp_path) as w:
        for agent in (w["a"], w["b"]) if leader_is_on_it else (w["b"],):
            agent.assign(role="reviewer")
            await agent.until(on(agent, ROLE), "joined")
        b = w["b"]
        await w["a"].until(lambda: (m := w["a"].parts.store.get(Member, b.peer)) is not None and bool(m.role))
        task_id = fresh_id()
        task = {"title": "t", "commands": ["true"], "task_id": task_id}
        await w.mesh.hub("x", "foreign").publish(ROLE, "task_announcement", task)
        await b.until(lambda: b.task(task_id) is not None, "heard")
        body = b.parts.store.get(Body, task_id)
        assert body is not None
        assert body.task["required_role"] == "reviewer"
        await b.until(lambda: any(w[name].executor.awards for name in "abc"), "awarded")
        assert not w["c"].executor.awards


async def test_a_refused_announcement_is_answered_by_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w["b"].assign(role="reviewer")
        w["c"].assign(role="reviewer")
        for name in "bc":
            await w[name].until(on(w[name], ROLE), "joined")
            await w[name].until(lambda: all(
                (m := w[one].parts.store.get(Member, w[other].peer)) is not None and m.role
                for one in "abc" for other in "bc"
            ))  # fmt: skip
        named, secret = fresh_id(), "hunter2 hunter2"
        bad = {"title": "t", "task_id": named, "timeout_s": secret}
        await w.mesh.hub("x", "foreign").publish("chorus/tasks", "task_announcement", bad)
        await w.mesh.hub("y", "foreign").publish(ROLE, "task_announcement", {**bad, "task_id": "no id"})
        await w["a"].until(lambda: len(heard(w, "task_decline")) >= 2, "answered")
        said = {data["task_id"] == named: data for _, data in heard(w, "task_decline")}
        assert len(heard(w, "task_decline")) == 2
        for data in said.values():
            assert "timeout_s: " in data["reason"]
            assert secret not in json.dumps(data)
        # Without an id of its own it is named by its message's.
        assert len(said[False]["task_id"]) == 40


async def test_what_the_table_would_refuse_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = fresh_id()
        task = {"title": "one", "commands": ["true"], "task_id": task_id}
        task |= {"secrets": {"WORD": "opened sesame"}}
        await w.mesh.hub("x", "foreign").publish("chorus/tasks", "task_announcement", task)
        await w["a"].until(lambda: bool(heard(w, "task_decline", task_id=task_id)), "answered")
        ((_, said),) = heard(w, "task_decline", task_id=task_id)
        assert said["reason"].startswith("secrets: ")
        # A repeat of a known task is no refusal.
        known = {"title": "two", "commands": ["true"], "task_id": fresh_id()}
        for _ in range(2):
            await w.mesh.hub("y", "foreign").publish("chorus/tasks", "task_announcement", known)
            await w["a"].until(lambda: w["a"].task(known["task_id"]) is not None, "taken")
        assert not heard(w, "task_decline", task_id=known["task_id"])


async def test_each_change_of_availability_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w["a"].until(lambda: bool(heard(w, "availability_broadcast", active=0, available=2)), "told")
        await w["a"].submit()
        await w["a"].until(lambda: bool(heard(w, "availability_broadcast", active=1, available=1)), "told")

"""No secret that somebody wrote into a task, a reason or a name reaches the mesh's log in clear."""

from __future__ import annotations

import logging
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from agents import Agent, World, fresh_id, world
from pydantic import BaseModel

from chorus.coordinator.redaction import Redaction
from chorus.coordinator.treatment import ENTRIES, MADE_BY_CORE, TASK, Leaf, Named, Text, Treatment
from chorus.core import Scanner
from chorus.hub import HubError, HubInvalid
from chorus.process.logs import Logger
from chorus.table import entries, holders, import_entries, votes
from chorus.table.submitted import SubmittedTask
from chorus.wire.messages import TASKS
from chorus.wire.secrets import SEALED_PREFIX
from chorus.wire.task import TaskSubmission

TOKEN = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
REDACTED = "[REDACTED:github-token]"
PEER = "12D3KooWBmwkafWE2fqfzS96VoTZgpGp6aJsF4N6cKqTuS1MGUjz"
FACTS = {**entries.FACTS, **votes.FACTS, **import_entries.FACTS, **holders.FACTS}


def redaction() -> Redaction:
    return Redaction(Scanner(), Logger(logging.getLogger("chorus.test")))


def cleaned_task(**task: Any) -> tuple[dict[str, Any], list[str]]:
    return redaction().task(TaskSubmission.model_validate({"title": "t", **task}).body())


def entries_of(w: World) -> str:
    """All that the mesh's log says, without what is sealed: the fake hub's seals show what is in them."""
    bodies = [(entry.head, orjson.loads(entry.payload or b"{}")) for entry in w.mesh.entries]
    for _, body in bodies:
        if "task" in body:
            body["task"]["secrets"] = sorted(body["task"]["secrets"])
    return repr(bodies)


# Every field is declared.


def undeclared(model: Any, treatment: Any, field: str) -> Iterator[str]:
    """The fields of a type that have no treatment of their own."""
    if typing.get_origin(model) is typing.Annotated:
        model = typing.get_args(model)[0]
    if typing.get_origin(model) in (typing.Union, types.UnionType):
        for each in typing.get_args(model):
            yield from undeclared(each, treatment, field)
    elif isinstance(model, type) and issubclass(model, BaseModel):
        if not isinstance(treatment, dict):
            yield field
            return
        for name, info in model.model_fields.items():
            if name not in treatment:
                yield f"{field}.{name}"
            else:
                yield from undeclared(info.annotation, treatment[name], f"{field}.{name}")
    elif typing.get_origin(model) in (list, tuple) and isinstance(treatment, list):
        yield from undeclared(typing.get_args(model)[0], treatment[0], f"{field}[]")


def test_every_field_of_every_entry_is_declared() -> None:
    assert set(FACTS) == set(ENTRIES) | MADE_BY_CORE
    assert not set(ENTRIES) & MADE_BY_CORE
    missing = [name for type in ENTRIES for name in undeclared(FACTS[type], ENTRIES[type], type)]
    missing += [*undeclared(TaskSubmission, TASK, "task"), *undeclared(SubmittedTask, TASK, "entry's task")]
    assert missing == []


def test_a_field_without_a_treatment_is_noticed() -> None:
    class More(entries.Cancel):
        note: str = ""

    assert list(undeclared(More, ENTRIES["cancel"], "cancel")) == ["cancel.note"]


# A value with a secret in every place of every entry.

_SCALARS = {"attempt": 1, "task_id": "01JABCDEFGHJKMNPQRSTVWXYZ0"}


def filled(treatment: Treatment, secret: str) -> Any:
    match treatment:
        case Text() | Leaf.NAME:
            return f"it is {secret}"
        case Leaf.OPAQUE:
            return 1
        case Leaf.WHOLE | Leaf.VARIABLE:
            return "plain"
        case Leaf.SEALED:
            return SEALED_PREFIX
        case Named():
            return {"NAME": filled(treatment.values, secret)}
        case list():
            return [filled(treatment[0], secret)]
        case dict():
            return {name: filled(item, secret) for name, item in treatment.items()}
    raise AssertionError(treatment)


@pytest.mark.parametrize("type", ENTRIES)
def test_no_entry_keeps_a_secret(type: str) -> None:
    said = []
    try:
        said.append(repr(redaction().entry(type, filled(ENTRIES[type], TOKEN))))
    except HubInvalid as refused:
        said += [refused.message, "rule github-token" in refused.message]
    assert TOKEN not in said[0]
    assert said[1:] in ([], [True])
    # Without a secret nothing changes.
    plain = filled(ENTRIES[type], "all well")
    assert redaction().entry(type, plain) == plain


def test_what_no_type_expects_is_cleaned_too() -> None:
    odd: dict[str, Any] = {"reason": {"a": [TOKEN, {TOKEN: 1}]}, "unknown": [TOKEN], "task_id": "x"}
    assert TOKEN not in repr(redaction().entry("cancel", odd))
    assert TOKEN not in repr(redaction().entry("waiting", {"tasks": TOKEN}))
    with pytest.raises(HubInvalid, match="not proposed"):
        redaction().entry("found", {})


def test_a_redacted_text_still_fits_its_entry() -> None:
    # Each finding becomes longer than it was.
    long = "db://u:Xy7q9@c  " * 125
    body = redaction().entry("cancel", {"task_id": _SCALARS["task_id"], "by": long[:128], "reason": long})
    assert "Xy7q9" not in repr(body)
    entries.Cancel.model_validate(body)
    task, _ = cleaned_task(title=long[:200], description=long * 32)
    assert "Xy7q9" not in repr(task)
    TaskSubmission.model_validate(task)


def test_a_text_full_of_secrets_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    redaction().entry("cancel", {"reason": f"{TOKEN} " * 40})
    assert 0 < len(caplog.records) < 20


# A task.


@pytest.mark.parametrize(
    ("field", "task"),
    [
        ("language", {"language": TOKEN}),
        ("project", {"project": TOKEN}),
        ("required_role", {"required_role": TOKEN}),
        ("required_expertise.1", {"required_expertise": ["x", TOKEN]}),
        ("specialization", {"specialization": TOKEN}),
        ("submitted_by", {"submitted_by": TOKEN}),
        ("workdir", {"workdir": f"a/{TOKEN}"}),
        ("artifacts.0", {"artifacts": [f"{TOKEN}.txt"]}),
        ("source.files", {"source": {"kind": "inline", "files": {f"src/{TOKEN}": "x"}}}),
        ("env", {"env": {TOKEN: "x"}}),
        ("secrets", {"secrets": {TOKEN: "x"}}),
    ],
)
def test_a_name_that_holds_a_secret_is_refused_by_its_field(field: str, task: dict[str, Any]) -> None:
    with pytest.raises(HubInvalid) as refused:
        cleaned_task(**task)
    assert refused.value.message.startswith(f"{field}: ")
    assert TOKEN not in refused.value.message


def test_a_variable_with_a_secret_is_moved_to_the_secrets_and_that_is_said() -> None:
    task, notices = cleaned_task(
        env={"CI": "1", "GITHUB_TOKEN": TOKEN, "DB_PASSWORD": "Gr33n-T3a!x9"}, secrets={"OTHER": "kept"}
    )
    assert task["env"] == {"CI": "1"}
    assert task["secrets"] == {"OTHER": "kept", "GITHUB_TOKEN": TOKEN, "DB_PASSWORD": "Gr33n-T3a!x9"}
    assert [notice.partition(":")[0] for notice in notices] == ["env.GITHUB_TOKEN", "env.DB_PASSWORD"]
    assert TOKEN not in repr(notices)


def test_what_a_task_needs_to_run_stays_whole_and_is_said() -> None:
    task, notices = cleaned_task(
        commands=["true", f"curl -H 'token: {TOKEN}' x"],
        stdin=TOKEN,
        source={"kind": "inline", "files": {"a.py": f"T = '{TOKEN}'", "b.py": "x"}},
    )
    assert task["commands"][1] == f"curl -H 'token: {TOKEN}' x"
    assert [notice.partition(":")[0] for notice in notices] == ["commands.1", "source.files.a.py", "stdin"]
    assert TOKEN not in repr(notices)


@pytest.mark.parametrize(
    "commands",
    [
        [f"printf {TOKEN[:20]}", f"printf {TOKEN[20:]}"],
        [f"printf '{TOKEN[:5]}' > t", f'printf "{TOKEN[5:]}" >> t'],
        [f"export A={TOKEN[:30]}", f"export B={TOKEN[30:]}", "echo $A$B"],
    ],
)
def test_a_secret_split_over_two_commands_is_found(commands: list[str]) -> None:
    _, notices = cleaned_task(commands=commands)
    assert [notice.partition(":")[0] for notice in notices] == ["commands.0 and commands.1 together"]


def test_ordinary_commands_are_no_secret_together() -> None:
    _, notices = cleaned_task(
        commands=["export TOKEN=", "pytest -q tests/unit", "git log --oneline ghp_", "x"]
    )
    assert notices == []


# On their ways through the mesh.


async def test_reasons_heard_and_asked_for_are_redacted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        foreign = w.mesh.hub("f", "api")
        await w["a"].call("table.cancel", task_id=fresh_id(), by=TOKEN, reason=f"over HTTP {TOKEN}")
        w["b"].executor.decline = w["a"].executor.decline = w["c"].executor.decline = f"no {TOKEN}"
        task_id = (await w["a"].submit(title=f"with {TOKEN}"))["task"]["task_id"]
        await w["a"].until(lambda: f"no {REDACTED}" in entries_of(w), "declined")
        heard = fresh_id()
        await foreign.publish(
            TASKS, "task_announcement", {"task_id": heard, "title": TOKEN, "env": {"A": TOKEN}}
        )
        await w["a"].until(lambda: w["a"].task(heard) is not None, "heard")
        await foreign.publish(TASKS, "task_cancel", {"task_id": heard, "reason": f"by gossip {TOKEN}"})
        await w["a"].state(heard, "cancelled")
        assert f"by gossip {REDACTED}" in entries_of(w)
        assert f"over HTTP {REDACTED}" in entries_of(w)
        await w["a"].call("table.cancel", task_id=task_id)
        assert "'secrets': ['A']" in entries_of(w)
        assert TOKEN not in entries_of(w)


async def test_an_executor_can_say_nothing_in_clear(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        agent = await _running(w)
        task_id, attempt = agent.executor.awards[0]
        await agent.executor.say(
            "result", task_id=task_id, attempt=attempt, outcome="failed",
            reason=f"the source was refused: {TOKEN}", summary=f"Last command: {TOKEN}",
            commands=[{"command": f"echo {TOKEN}", "exit_code": 1, "duration_s": 0.1}],
            artifacts=[{"path": f"{TOKEN}.txt", "size": 1, "sha256": "0" * 64}],
        )  # fmt: skip
        await agent.state(task_id, "failed")
        assert TOKEN not in entries_of(w)


async def test_a_submission_tells_what_was_moved_and_is_known_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        task_id = fresh_id()
        task = {"task_id": task_id, "title": f"a {TOKEN}", "env": {"TOKEN": TOKEN}}
        first = await w["a"].submit(**task)
        assert [notice.partition(":")[0] for notice in first["notices"]] == ["env.TOKEN"]
        again = await w["a"].submit(**task)
        assert (again["created"], again["notices"]) == (False, first["notices"])
        assert (await w["a"].submit())["notices"] == []
        with pytest.raises(HubError, match="project: holds what looks like a secret"):
            await w["a"].submit(project=TOKEN)


async def _running(w: World) -> Agent:
    await w["a"].submit()
    await w["a"].until(lambda: any(agent.executor.awards for agent in w.agents.values()))
    agent = next(agent for agent in w.agents.values() if agent.executor.awards)
    task_id, _ = agent.executor.awards[0]
    await agent.state(task_id, "claimed")
    return agent


def test_a_ucxl_address_and_a_voter_are_names() -> None:
    version = {"address": f"ucxl://a:b@c:d/*^/{TOKEN}", "hash": "0" * 64}
    with pytest.raises(HubInvalid, match=r"^address: "):
        redaction().entry("version", version)
    plain = {"address": "ucxl://agent-1:developer@chorus:task/*^/notes/a.md", "content_type": "text/plain"}
    assert redaction().entry("version", plain) == plain
    with pytest.raises(HubInvalid, match=r"^by: "):
        redaction().entry("vote", {"hash": "0" * 64, "by": TOKEN})
    body = {"hash": "0" * 64, "voters": [PEER], "open_ms": 1, "quorum": 1}
    assert redaction().entry("ballot", orjson.loads(orjson.dumps(body))) == body

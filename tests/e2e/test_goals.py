"""Twenty goals reached by the loop over three agents, whose model plays the script of each."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from chorus.wire.ids import new_id
from goals.repositories import REPOSITORIES, Repository

from .goal_runs import Run, Runs, called_once, mends, with_model
from .test_run import until

pytestmark = pytest.mark.e2e

# One of each kind; the others take no other way through the loop.
QUICK = {"off_by_one", "two_files", "rename", "binary_file", "unicode_path", "edited_test", "shell_quoting"}
# The sandbox images of languages, where they are not those of every checkout.
IMAGES = {"javascript": "node", "go": "go", "rust": "rust", "c": "cpp"}


def repositories() -> list[Any]:
    return [
        pytest.param(one, id=name, marks=[] if name in QUICK else [pytest.mark.heavy])
        for name, one in REPOSITORIES.items()
    ]


def image_is_here(repository: Repository) -> bool:
    name = IMAGES.get(repository.said.language)
    if name is None:
        return True
    with contextlib.closing(docker.from_env()) as client:
        return bool(client.images.list(f"anthonyrawlins/chorus-{name}-dev"))


@pytest.fixture(scope="module")
def runs(needs: None) -> Iterator[Runs]:
    with with_model(3) as made:
        yield made


@pytest.fixture(scope="module")
def submitted(runs: Runs) -> dict[str, str]:
    """The ids of the tasks by repository: all are submitted at once, and the agents share them."""
    wanted = REPOSITORIES if os.environ.get("CHORUS_HEAVY") else QUICK
    chosen = [REPOSITORIES[name] for name in wanted if image_is_here(REPOSITORIES[name])]
    return {
        one.name: runs.submit(one.task(new_id()), one.archive(), at=number)
        for number, one in enumerate(chosen)
    }


def reached(runs: Runs, submitted: dict[str, str], repository: Repository) -> Run:
    if repository.name not in submitted:
        pytest.skip(f"the sandbox image for {repository.said.language} is not built here")
    return runs.ended(submitted[repository.name])


@pytest.mark.parametrize("repository", repositories())
def test_the_oracle_reaches_it(
    runs: Runs, submitted: dict[str, str], repository: Repository, tmp_path: Path
) -> None:
    run = reached(runs, submitted, repository)
    assert (run.state, run.ended_by) == ("completed", "finished"), run.task["result"]
    report = run.report
    assert report["steps"] == len(repository.said.script.replies)
    assert report["model"].split(":")[0] == runs.model.model
    assert report["unchecked"] is False
    assert [check["command"] for check in report["checks"]] == list(repository.said.checks)
    assert {check["exit_code"] for check in report["checks"]} == {0}
    assert report["tokens_in"] > report["tokens_out"] > 0
    # The patch alone makes the checks pass, also here.
    if image_is_here(repository) and repository.said.language not in IMAGES:
        assert mends(run.patch(), repository, tmp_path / "work")
    # What stays of it is read from an agent that did not run it.
    other = next(agent for agent in runs.mesh.agents if agent.agent_id != run.task["agent_id"])
    assert Run(other, other.get(f"/api/v1/tasks/{run.task['task_id']}").json()).patch() == run.patch()


@pytest.mark.parametrize("name", sorted(QUICK))
def test_the_journal_tells_the_whole_run(runs: Runs, submitted: dict[str, str], name: str) -> None:
    repository = REPOSITORIES[name]
    records = reached(runs, submitted, repository).transcript()
    called_once(records)
    kinds = [record["kind"] for record in records]
    assert (kinds[0], kinds[-1]) == ("start", "end")
    replies = [record for record in records if record["kind"] == "reply"]
    assert [record["step"] for record in replies] == list(range(1, len(replies) + 1))
    assert kinds.count("call") == kinds.count("outcome")
    checks = [record["passed"] for record in records if record["kind"] == "checks"]
    assert checks == [False] * repository.said.refused + [True]


def test_protected_files_are_checked_as_they_were_sent(
    runs: Runs, submitted: dict[str, str], tmp_path: Path
) -> None:
    run = reached(runs, submitted, REPOSITORIES["edited_test"])
    # The changed test passed in the loop's own sandbox, and the checks told the model that it does not.
    refused = next(r for r in run.of_kind("checks") if not r["passed"])
    assert any(command["exit_code"] for command in refused["commands"])


def test_what_was_learnt_is_a_record_that_others_verify(runs: Runs, submitted: dict[str, str]) -> None:
    run = reached(runs, submitted, REPOSITORIES["off_by_one"])
    other = next(agent for agent in runs.mesh.agents if agent.agent_id != run.task["agent_id"])
    task_id = run.task["task_id"]
    items = until(lambda: other.get("/api/v1/decisions", task_id=task_id, kind="task_result").json()["items"])
    [item] = items
    said = json.loads(runs.mesh.ctl("decision", "verify", item["hash"], "--json").stdout)
    assert said["genuine"] is True
    record = other.get(f"/api/v1/decisions/{item['hash']}").text
    for fact in (
        run.report["patch"]["sha256"],
        run.report["transcript_sha256"],
        run.report["prompts_sha256"],
    ):
        assert fact in record

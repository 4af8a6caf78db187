"""Each repository fails its checks as it is sent, and passes them with what its script does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chorus.dev import Call
from chorus.mind.run.tools import checked

from .repositories import REPOSITORIES, Repository, passes, play

# What the checks run, by language; "" has what every machine has.
PROGRAMS = {"python": "python3", "javascript": "node", "go": "go", "rust": "cargo", "c": "cc"}
# These compile for more than a moment.
SLOW = {"go", "rust"}


@pytest.fixture(
    params=[
        pytest.param(one, id=name, marks=[pytest.mark.heavy] if one.said.language in SLOW else [])
        for name, one in REPOSITORIES.items()
    ]
)
def repository(request: pytest.FixtureRequest) -> Repository:
    found: Repository = request.param
    program = PROGRAMS.get(found.said.language, "make")
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    return found


def test_there_are_twenty_and_five_for_a_small_model() -> None:
    assert len(REPOSITORIES) == 20
    small = [one for one in REPOSITORIES.values() if one.said.small]
    assert len(small) == 5
    for one in small:
        assert len([path for path in one.files.iterdir() if not path.name.startswith("test_")]) == 1


def test_no_goal_is_a_part_of_another() -> None:
    goals = [one.said.goal for one in REPOSITORIES.values()]
    assert not [(a, b) for a in goals for b in goals if a is not b and a in b]


def test_it_fails_as_sent_and_passes_after_its_script(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(repository.files, folder, symlinks=True)
    assert not passes(repository, folder)
    shutil.rmtree(folder)
    shutil.copytree(repository.files, folder, symlinks=True)
    play(repository, folder)
    assert passes(repository, folder)


def test_a_script_ends_with_finish_and_its_calls_fit_the_tools(repository: Repository) -> None:
    calls: list[Call] = [call for reply in repository.said.script.replies for call in reply.calls]
    assert calls[-1].tool == "finish"
    for call in calls:
        checked(call.tool, call.arguments)
    assert [call.tool for call in calls].count("finish") == 1 + repository.said.refused

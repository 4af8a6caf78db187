"""What a goal begins with, and why it does not begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.archives.errors import ArchiveRefused
from chorus.executor.goal.inputs import GoalInputs
from chorus.wire.task import parse_task


class NoSources:
    """Stands in for the sources of tasks: there are none."""

    async def prepare(self, *_: Any) -> Path | None:
        return None


def inputs(folder: Path, **fields: Any) -> GoalInputs:
    sources: Any = NoSources()
    runs: Any = None
    return GoalInputs(parse_task({"title": "t", **fields}), sources, folder, runs)


async def test_protected_patterns_that_stand_for_too_much_are_refused(tmp_path: Path) -> None:
    glob = "tests/" + "{a,b}" * 12
    goal = inputs(tmp_path, protected=["x", glob])
    await goal.read((), 1)
    with pytest.raises(ArchiveRefused) as refused:
        await goal.prepare(goal.task, (), 1)
    assert str(refused.value).startswith(f"protected: the braces of '{glob}'")
    assert goal.begun is None


async def test_protected_patterns_within_the_bounds_are_taken(tmp_path: Path) -> None:
    goal = inputs(tmp_path, protected=["tests/{a,b}"])
    await goal.read((), 1)
    assert await goal.prepare(goal.task, (), 1) is None
    assert goal.begun is not None

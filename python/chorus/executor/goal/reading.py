"""Reads a goal's inputs before its sandbox is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from chorus.executor.goal.earlier_run import EarlierRuns
from chorus.executor.goal.inputs import GoalInputs
from chorus.executor.images import ImageChoice, ImageRefused, choose
from chorus.executor.project import PROJECT_FILE
from chorus.executor.room import Room, limits_for
from chorus.executor.workspace import Sources
from chorus.wire.task import TaskSubmission


async def read_inputs(
    room: Room, task: TaskSubmission, holders: Iterable[str], folder: Path, choice: ImageChoice
) -> tuple[GoalInputs, TaskSubmission, ImageChoice]:
    """A goal's inputs, its task with what the project file gives, and its image, which a language that the
    file names decides.

    Raises HubError, OSError.
    """
    scratch = folder / "scratch"
    runs = EarlierRuns(room.hub, room.table)
    inputs = GoalInputs(task, Sources(room.hub, room.blobs, scratch), scratch, runs)
    merged = await inputs.read(holders, limits_for(task, room.ceiling).disk_bytes)
    if merged.language != task.language:
        try:
            choice = choose(merged.language, (), "", room.settings.sandbox.images)
        except ImageRefused as refused:
            inputs.refused = f"{PROJECT_FILE}: language: {refused}"
    return inputs, merged, choice

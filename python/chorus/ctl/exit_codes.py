"""How a task's end becomes the exit code of the command that followed it."""

from __future__ import annotations

from typing import Any, Final

from chorus.ctl.problems import CANCELLED, FAILED, MESH_FAILED, TIMED_OUT
from chorus.ctl.terminal import note

EXIT_CODE_MAX: Final = 255
# Ends that are the mesh's doing, not the goal's.
_OF_THE_MESH: Final = frozenset({"daemon", "lost", "unresponsive"})


def exit_code(end: dict[str, Any]) -> int:
    """The code for a task's end: the command's own where it has one."""
    state, code, ended_by = end.get("state"), end.get("exit_code"), end.get("ended_by")
    if state == "cancelled":
        return CANCELLED
    if ended_by == "timeout":
        note(f"chorusctl: timed out: {end.get('reason')}")
        return TIMED_OUT
    if not isinstance(code, int) or not 0 <= code <= EXIT_CODE_MAX:
        code = None  # the agent that ran it says so, and may say anything
    if state == "completed":
        return code or 0  # a goal's end has no command's code
    if ended_by in (None, "exit") and code is not None:
        return code
    note(f"chorusctl: {state}: {end.get('reason') or ended_by}")
    return code or MESH_FAILED


def goal_exit_code(end: dict[str, Any]) -> int:
    """The code for a goal's end: 0 when it was reached, 1 when it was not."""
    state, ended_by = end.get("state"), end.get("ended_by")
    if state == "completed":
        return 0
    note(f"chorusctl: {state}: {end.get('reason') or ended_by}")
    if state == "cancelled":
        return CANCELLED
    if ended_by == "timeout":
        return TIMED_OUT
    return MESH_FAILED if state != "failed" or ended_by in (None, *_OF_THE_MESH) else FAILED


def task_exit_code(task: dict[str, Any], end: dict[str, Any]) -> int:
    """The code for the end of a task of either kind."""
    return exit_code(end) if task.get("commands") else goal_exit_code(end)

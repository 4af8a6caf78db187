"""`chorusctl show`: a task in short. How it ended and why, its checks, what it cost, and its patch."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any, Final

from chorus.ctl.client import Client
from chorus.ctl.patch_text import PatchedFile, in_short
from chorus.ctl.show import print_json, print_pairs
from chorus.ctl.story import Line, check_lines, shortened
from chorus.ctl.terminal import say
from chorus.wire.counts import counted
from chorus.wire.visible import visible

# Files that are named one by one, and what was left out of a patch.
FILES_MAX: Final = 30
LEFT_OUT_MAX: Final = 10
_MARKS: Final = {"changed": "M", "new": "A", "deleted": "D", "renamed": "R", "copied": "C"}

Data = dict[str, Any]


def show(client: Client, arguments: Namespace) -> int:
    """One task in short."""
    task = client.get(f"/api/v1/tasks/{arguments.task}")
    if arguments.json:
        return print_json(task)
    rows = [
        ("task", task["task_id"]),
        ("title", task["title"]),
        ("state", f"{task['state']}{': ' + str(task['reason']) if task['reason'] else ''}"),
        ("agent", task["agent_id"] or "none yet"),
        ("attempt", str(task["attempt"])),
    ]
    if task.get("continues"):
        rows.append(("continues", str(task["continues"])))
    print_pairs([(name, str(value)) for name, value in rows])
    for line in result_lines(task):
        say(line.text)
    return 0


def goal_of(task: Data) -> Data:
    """The report of a goal in a task's result; empty for a task with commands, and before there is one."""
    return _dict(_dict(task.get("result")).get("goal"))


def unchecked(goal: Data) -> bool:
    """Whether no check has passed judgement on what a goal's run made."""
    return bool(goal.get("unchecked")) or not goal.get("checks")


def result_lines(
    task: Data, files: list[PatchedFile] | None = None, *, with_checks: bool = True
) -> Iterator[Line]:
    """How a task ended; `files` are those of its patch, if that was read."""
    result = _dict(task.get("result"))
    goal = goal_of(task)
    if goal:
        if with_checks:
            yield from check_lines(goal.get("checks"))
        if unchecked(goal) and task.get("state") == "completed":
            yield Line("note", "unchecked: there were no checks, the outcome is the model's word")
        yield Line("note", _cost(goal))
        yield from patch_lines(_dict(goal.get("patch")), files)
    else:
        yield from check_lines(result.get("commands"), "command")
    if result.get("ended_by"):
        yield Line("note", f"ended by: {result['ended_by']}")
    if result.get("decision"):
        yield Line("note", f"decision: {result['decision']}")
    if goal.get("discussion"):
        yield Line("note", f"discussion: {goal['discussion']}")


def patch_lines(patch: Data, files: list[PatchedFile] | None) -> Iterator[Line]:
    """What a patch changes, and what was left out of it."""
    if not patch:
        yield Line("note", "patch: none, no file was changed")
        return
    if files is None:
        size = counted(patch.get("size"), "byte")
        yield Line("note", f"patch: {counted(patch.get('files'), 'file')}, {size}")
    else:
        yield Line("note", f"patch: {in_short(files)}")
        for each in files[:FILES_MAX]:
            counts = "binary" if each.binary else f"+{each.added} -{each.removed}"
            yield Line("note", f"  {_MARKS[each.change]} {shortened(each.path)} {counts}")
        if len(files) > FILES_MAX:
            yield Line("note", f"  … {counted(len(files) - FILES_MAX, 'file')} more")
    left_out = patch.get("left_out")
    listed = [one for one in left_out if isinstance(one, dict)] if isinstance(left_out, list) else []
    for one in listed[:LEFT_OUT_MAX]:
        # The last of a long list says how many there are more.
        path = f"{shortened(visible(str(one['path'])))}: " if one.get("path") else ""
        yield Line("note", f"  not in it: {path}{one.get('reason')}")
    if len(listed) > LEFT_OUT_MAX:
        yield Line("note", f"  … not in it: {len(listed) - LEFT_OUT_MAX} more")


def _cost(goal: Data) -> str:
    usd = goal.get("usd")
    money = f", ${usd:.4f}" if isinstance(usd, int | float) else ""
    return (
        f"model: {goal.get('model')} of {goal.get('provider')}; steps: {goal.get('steps')}, "
        f"{counted(goal.get('tokens_in'), 'token')} read and {goal.get('tokens_out')} written{money}"
    )


def _dict(value: object) -> Data:
    return value if isinstance(value, dict) else {}

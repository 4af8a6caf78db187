"""A goal as a task: what the arguments of `ask` say, and what it takes from the goal that it continues."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

from chorus.ctl.client import Client
from chorus.ctl.limits import resources
from chorus.ctl.problems import USAGE, CtlError
from chorus.ctl.variables import environment, secrets
from chorus.wire.ids import new_id
from chorus.wire.task import TITLE_MAX_CHARS

# What a goal that continues another takes from it, unless it is said anew. Not its budget and its secrets.
_CARRIED: Final = (
    "language", "project", "workdir", "env", "resources", "setup", "checks", "protected", "artifacts",
    "required_model", "local_model",
)  # fmt: skip


def check(arguments: Namespace) -> None:
    """Raises CtlError for arguments that contradict each other."""
    applies = arguments.apply or arguments.apply_unchecked
    if not arguments.goal.strip():
        raise CtlError('what is to be reached? chorusctl ask [options] "GOAL"', USAGE)
    if applies and arguments.dir is None:
        raise CtlError("--apply: to which files? Send a folder with --dir FOLDER; it is changed then", USAGE)
    if arguments.detach and (applies or arguments.output):
        raise CtlError(
            "--detach waits for no files: leave out --apply and -o; chorusctl artifacts saves them later",
            USAGE,
        )


def task_of(arguments: Namespace) -> dict[str, Any]:
    """The task that the arguments describe. It gets its id here, so that it may be sent twice."""
    first_line = arguments.goal.strip().partition("\n")[0].strip()
    asked = {
        "description": arguments.goal,
        "language": arguments.language,
        "project": arguments.project,
        "env": environment(arguments.env),
        "secrets": secrets(arguments.secret),
        "artifacts": arguments.artifact,
        "setup": arguments.setup,
        "checks": arguments.check,
        "protected": arguments.protect,
        "required_model": arguments.model,
        "local_model": arguments.local_model,
        "timeout_s": arguments.timeout,
        "resources": resources(arguments),
        "budget": _budget(arguments),
        "continues": arguments.continues,
    }
    return {
        "task_id": new_id(),
        "title": _shortened(arguments.title or first_line),
        **{name: value for name, value in asked.items() if value},
    }


def continued(client: Client, task: dict[str, Any], *, with_source: bool) -> dict[str, Any]:
    """The task with what it takes from the one that it continues, and with that one's source unless another
    goes with it.
    """
    before = client.get(f"/api/v1/tasks/{task['continues']}")
    taken = {name: before[name] for name in _CARRIED if before.get(name)}
    if with_source and isinstance(before.get("source"), dict):
        # Defaults that the answer spells out are no part of what names the source.
        taken["source"] = {name: value for name, value in before["source"].items() if value}
    return {**taken, **task}


def _budget(arguments: Namespace) -> dict[str, Any]:
    asked = {"steps": arguments.steps, "tokens": arguments.tokens, "usd": arguments.usd}
    return {name: value for name, value in asked.items() if value is not None}


def _shortened(text: str) -> str:
    return text if len(text) <= TITLE_MAX_CHARS else f"{text[: TITLE_MAX_CHARS - 1]}…"

"""`chorusctl run`: one command in a sandbox of the mesh, as if it ran here. Also `wait` and `logs`.

What looks secret is said before anything is sent.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import Any, Final

import httpx

from chorus.ctl.artifacts import after_run
from chorus.ctl.attend import attended, follow_to_end, submit
from chorus.ctl.client import Client
from chorus.ctl.exit_codes import exit_code, task_exit_code
from chorus.ctl.follow import TaskEvent, follow
from chorus.ctl.limits import resources
from chorus.ctl.problems import MESH_FAILED, USAGE, CtlError
from chorus.ctl.report import goal_of, result_lines
from chorus.ctl.source import pack_folder, spool
from chorus.ctl.standard_input import read_into, unread
from chorus.ctl.terminal import Output, note, say, say_json, write_bytes
from chorus.ctl.variables import environment, secrets
from chorus.wire.ids import new_id
from chorus.wire.task import TITLE_MAX_CHARS

_OUTPUT_CHUNK_BYTES: Final = 256 * 1024


def run(client: Client, arguments: Namespace) -> int:
    """Submits, follows, and ends as the command ended. However it ends itself, the task is cancelled then."""
    task = task_of(arguments)
    task_id = str(task["task_id"])
    with attended(client, task_id) as beside, ExitStack() as opened:
        try:
            source = stdin = None
            if arguments.dir is not None:
                source = opened.enter_context(spool())
                pack_folder(arguments, source)
            if arguments.interactive:
                stdin = opened.enter_context(spool())
                read_into(stdin)
        except BaseException:
            beside.over()  # nothing was sent
            raise
        hinted = _hint(arguments)
        submit(client, task, source, stdin, beside)
        if arguments.json:
            note(task_id)
        progress = sys.stderr.isatty() and not arguments.json
        ended = follow_to_end(
            client, task_id, beside, lambda event: _show(event, progress, arguments.json), progress=progress
        )
        beside.over()
    code = exit_code(ended.data) if ended.signalled is None else ended.signalled
    if not hinted:
        _hint(arguments)
    # The command's own code says more than that of its files.
    saved = after_run(client, task_id, arguments) if task["artifacts"] else 0
    return code or saved


def _hint(arguments: Namespace) -> bool:
    """Says that what waits on standard input goes nowhere. A pipe may be filled later: asked twice."""
    if arguments.interactive or not unread():
        return False
    note("chorusctl: standard input is not passed to the command; -i does that")
    return True


def task_of(arguments: Namespace) -> dict[str, Any]:
    """The task that the arguments describe. It gets its id here, so that it may be sent twice."""
    words: list[str] = arguments.command
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise CtlError("what is to be run? chorusctl run [options] -- COMMAND…", USAGE)
    # One word may be a whole command line; several are arguments and kept apart.
    command = words[0] if len(words) == 1 else shlex.join(words)
    task: dict[str, Any] = {
        "task_id": new_id(),
        "title": (arguments.title or command)[:TITLE_MAX_CHARS],
        "commands": [command],
        "env": environment(arguments.env),
        "secrets": secrets(arguments.secret),
        "artifacts": arguments.artifact,
    }
    if arguments.output and not arguments.artifact:
        raise CtlError("-o: nothing would be saved; name files with --artifact GLOB", USAGE)
    if arguments.language:
        task["language"] = arguments.language
    if arguments.timeout:
        task["timeout_s"] = arguments.timeout
    if arguments.project:
        task["project"] = arguments.project
    if limits := resources(arguments):
        task["resources"] = limits
    return task


def _show(event: TaskEvent, progress: bool, as_json: bool) -> None:
    if as_json:
        say_json({"id": event.id or None, "event": event.event, "data": event.data}, flush=True)
    elif event.event == "output":
        write_bytes(event.output(), stderr=event.data.get("stream") == "stderr")
    elif event.event == "gap":
        # Whoever takes the output for complete must know better.
        note(f"chorusctl: something was lost: {event.data.get('detail')}")
    elif event.event == "state" and progress:
        reason = event.data.get("reason")
        note(f"· {event.data.get('state')}{f': {reason}' if reason else ''}")


def wait(client: Client, arguments: Namespace) -> int:
    """Waits for a task's end without its output."""
    for event in follow(client, arguments.task):
        if event.event == "end":
            task = client.get(f"/api/v1/tasks/{arguments.task}")
            if arguments.json:
                say_json(task)
                return task_exit_code(task, event.data)
            say(f"{task['state']}{': ' + str(task['reason']) if task['reason'] else ''}")
            if goal_of(task):
                for line in result_lines(task):
                    say(line.text)
            return task_exit_code(task, event.data)
    return MESH_FAILED


def logs(client: Client, arguments: Namespace) -> int:
    """The output of a task, byte for byte with `--raw`; else what could move a cursor is written out."""
    shown = Output()
    params = {"stream": arguments.stream, "follow": "true" if arguments.follow else "false"}
    try:
        with client.stream(f"/api/v1/tasks/{arguments.task}/logs", **params) as response:
            for chunk in response.iter_raw(_OUTPUT_CHUNK_BYTES if not arguments.follow else None):
                write_bytes(chunk) if arguments.raw else shown.push(chunk)
    except httpx.TransportError as error:
        raise CtlError(f"the output broke off: {str(error) or type(error).__name__}", MESH_FAILED) from None
    finally:
        shown.push(b"", end=True)
    return 0

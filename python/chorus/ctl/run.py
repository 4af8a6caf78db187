"""`chorusctl run`: one command in a sandbox of the mesh, as if it ran here. Also `wait` and `logs`.

What looks secret is said before anything is sent.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

import httpx

from chorus.ctl.artifacts import after_run
from chorus.ctl.client import Client, Refused, Unreachable
from chorus.ctl.credentials import FINDINGS_MAX, credentials, findings
from chorus.ctl.endings import PIPE_CLOSED, Canceller, Signalled, signals_raised
from chorus.ctl.follow import TaskEvent, follow
from chorus.ctl.left_out import in_short
from chorus.ctl.pack import pack
from chorus.ctl.problems import CANCELLED, FAILED, MESH_FAILED, TIMED_OUT, USAGE, CtlError
from chorus.ctl.standard_input import read_into, unread
from chorus.ctl.terminal import Output, drop_output, note, say, say_json, write_bytes
from chorus.ctl.texts import check_text, is_text
from chorus.ctl.tree import IGNORED, REPOSITORY, walk
from chorus.wire.ids import new_id
from chorus.wire.task import ENV_MAX_BYTES, TITLE_MAX_CHARS

# Archives up to this size are packed in memory.
SPOOL_MAX_BYTES: Final = 16 * 1024 * 1024
_OUTPUT_CHUNK_BYTES: Final = 256 * 1024
EXIT_CODE_MAX: Final = 255


def run(client: Client, arguments: Namespace) -> int:
    """Submits, follows, and ends as the command ended. However it ends itself, the task is cancelled then."""
    task = task_of(arguments)
    beside = Canceller(lambda: _taken(client, task["task_id"]))
    with signals_raised(), beside, ExitStack() as opened:
        try:
            source = stdin = None
            if arguments.dir is not None:
                source = opened.enter_context(_spool())
                _pack(arguments, source)
            if arguments.interactive:
                stdin = opened.enter_context(_spool())
                read_into(stdin)
        except BaseException:
            beside.over()  # nothing was sent
            raise
        code = _submit_and_follow(client, task, source, stdin, arguments, beside)
        beside.over()
    return code


def _spool() -> BinaryIO:
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(SPOOL_MAX_BYTES))


def _submit_and_follow(
    client: Client,
    task: dict[str, Any],
    source: BinaryIO | None,
    stdin: BinaryIO | None,
    arguments: Namespace,
    beside: Canceller,
) -> int:
    task_id = str(task["task_id"])
    hinted = _hint(arguments)
    try:
        answer = _submitted(client, task, source, stdin, beside)
        for notice in answer.get("notices") or ():
            note(f"chorusctl: {notice}")
        if arguments.json:
            note(task_id)
        code = _follow_to_end(client, task_id, arguments, beside)
    except Signalled as signalled:
        # A second one does not wait.
        _cancel(task_id, signalled.code, beside)
        raise
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; programs end then.
        drop_output()
        _cancel(task_id, PIPE_CLOSED, beside)
        return PIPE_CLOSED
    except OSError as error:
        _cancel(task_id, FAILED, beside)
        raise CtlError(f"the task was cancelled: its output cannot be written: {error.strerror}") from None
    except Unreachable as error:
        if not error.heard:
            beside.over()  # it was not taken
            raise
        raise CtlError(f"{error}; it is cancelled if an agent answers within a minute", error.code) from None
    if not hinted:
        _hint(arguments)
    # The command's own code says more than that of its files.
    saved = after_run(client, task_id, arguments) if task["artifacts"] else 0
    return code or saved


def _submitted(
    client: Client,
    task: dict[str, Any],
    source: BinaryIO | None,
    stdin: BinaryIO | None,
    beside: Canceller,
) -> dict[str, Any]:
    try:
        return client.submit(task, source, stdin)
    except Refused as error:
        if error.status < 500:
            beside.over()  # it was not taken
        raise CtlError(str(error), MESH_FAILED) from None


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
        "env": _environment(arguments.env),
        "secrets": _secrets(arguments.secret),
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
    if resources := _resources(arguments):
        task["resources"] = resources
    return task


def _resources(arguments: Namespace) -> dict[str, Any]:
    """What was asked for; the mesh has defaults for the others, and bounds for all."""
    asked = {
        "cpus": arguments.cpus,
        "memory_mb": _megabytes(arguments.memory),
        "disk_mb": _megabytes(arguments.disk),
        "pids": arguments.pids,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _megabytes(size: int | None) -> int | None:
    return None if size is None else -(-size // (1024 * 1024))


def _environment(pairs: list[str]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CtlError(f"--env {pair}: expected NAME=VALUE", USAGE)
        values[name] = value
    return values


def _secrets(given: list[str]) -> dict[str, str]:
    """Values from the environment or from files: arguments can be read by every user of a machine."""
    values = {}
    for each in given:
        name, at, file = each.partition("@")
        check_text(name)
        if "=" in name:
            name = name.partition("=")[0]
            raise CtlError(
                f"--secret {name}=…: lists of processes show what is in an argument, and shells keep it; "
                f"export {name} and give --secret {name}, or give --secret {name}@FILE",
                USAGE,
            )
        if not name or (at and not file):
            raise CtlError("--secret: expected NAME, of a variable here, or NAME@FILE", USAGE)
        if at:
            values[name] = _secret_in(name, Path(file))
        elif (value := os.environ.get(name)) is not None:
            if not is_text(value):
                raise CtlError(f"--secret {name}: its value is not UTF-8 text; encode it first", USAGE)
            values[name] = value
        else:
            raise CtlError(f"--secret {name}: there is no variable {name} here; export it first", USAGE)
    return values


def _secret_in(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(ENV_MAX_BYTES + 1)
        if len(content) > ENV_MAX_BYTES:
            raise CtlError(
                f"--secret {name}@{path}: secrets have at most {ENV_MAX_BYTES} bytes in all", USAGE
            )
        # One line end, as editors and `echo` leave it, is no part of the value.
        return content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise CtlError(f"--secret {name}@{path}: {error.strerror}", USAGE) from None
    except UnicodeDecodeError:
        raise CtlError(f"--secret {name}@{path}: not UTF-8 text; encode it first", USAGE) from None


def _pack(arguments: Namespace, archive: IO[bytes]) -> None:
    """Packs --dir; says what stays behind, and what looks secret in the files that are sent."""
    tree = walk(Path(arguments.dir))
    secret = [] if arguments.include_secrets else credentials(tree.root, tree.files)
    behind = {each.file for each in secret}
    files = [path for path in tree.files if path not in behind]
    try:
        others = pack(tree.root, [*tree.folders, *files], archive)
    except OSError as error:
        where = f"free space in {tempfile.gettempdir()}, or set TMPDIR"
        raise CtlError(f"--dir: the archive cannot be written: {error.strerror}; {where}") from None
    behind = {each.file for each in others}
    found = findings(tree.root, (path for path in files if path not in behind))
    left_out = [*tree.left_out, *others]
    if arguments.json:
        said = {
            "left_out": [asdict(each) for each in (*secret, *left_out)],
            "findings": [asdict(each) for each in found],
        }
        say_json({"id": None, "event": "packed", "data": said}, flush=True)
        return
    for each in secret:
        note(f"chorusctl: left out {each.file}: {each.why}; --include-secrets sends it")
    if short := in_short([each for each in left_out if each.why != REPOSITORY], frozenset({IGNORED})):
        note(f"chorusctl: left out {short}")
    if tree.unused_ignore_file:
        note(f"chorusctl: {arguments.dir} is in no git repository, so its .gitignore leaves nothing out")
    for one in found[:FINDINGS_MAX]:
        note(f"chorusctl: warning: {one.file}:{one.line} is sent and looks like a secret ({one.rule})")
    if len(found) > FINDINGS_MAX:
        note(f"chorusctl: warning: {len(found) - FINDINGS_MAX} more; chorusctl scan lists them")


def _follow_to_end(client: Client, task_id: str, arguments: Namespace, beside: Canceller) -> int:
    end: TaskEvent | None = None
    last = ""
    signalled: Signalled | None = None
    progress = sys.stderr.isatty() and not arguments.json
    while end is None:
        try:
            for event in follow(client, task_id, last):
                # First of all: whoever comes back after it is told nothing more.
                if event.event == "end":
                    end = event
                last = event.id or last
                _show(event, progress, arguments.json)
        except Signalled as error:
            if signalled is not None:
                raise
            signalled = error
            if progress:
                note("cancelling; Ctrl-C again does not wait for it")
            _cancel(task_id, signalled.code, beside)
            if signalled.number == signal.SIGHUP:
                raise  # there is no terminal to print the rest on
    if signalled is not None and end.data.get("state") == "cancelled":
        return signalled.code
    return exit_code(end.data)


def _cancel(task_id: str, code: int, beside: Canceller) -> None:
    """Cancels before this process ends. Raises CtlError with `code` when no agent has taken it yet."""
    if not beside.told and not beside.cancel():
        raise CtlError(
            f"task {task_id} is not cancelled yet, as no agent took that; it is tried for a minute, and "
            f"chorusctl cancel {task_id} does it by hand",
            code,
        )


def _taken(client: Client, task_id: str) -> bool:
    """Asks the mesh to cancel; whether it does, or the task has ended before."""
    try:
        with client.anew() as fresh:
            fresh.post(f"/api/v1/tasks/{task_id}/cancel", {"reason": "interrupted by the submitter"})
    except Refused as error:
        return error.status < 500
    except CtlError:
        return False
    return True


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
    if ended_by in (None, "exit") and code is not None:
        return code
    note(f"chorusctl: {state}: {end.get('reason') or ended_by}")
    return code or MESH_FAILED


def wait(client: Client, arguments: Namespace) -> int:
    """Waits for a task's end without its output."""
    for event in follow(client, arguments.task):
        if event.event == "end":
            task = client.get(f"/api/v1/tasks/{arguments.task}")
            if arguments.json:
                say_json(task)
            else:
                say(f"{task['state']}{': ' + str(task['reason']) if task['reason'] else ''}")
            return exit_code(event.data)
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

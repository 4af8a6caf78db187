"""`chorusctl ask`: a goal that a model reaches in a sandbox of the mesh, followed live."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import Any, BinaryIO

from chorus.ctl import goal
from chorus.ctl.attend import attended, follow_to_end, submit
from chorus.ctl.client import Client
from chorus.ctl.display import Json, lines
from chorus.ctl.exit_codes import goal_exit_code
from chorus.ctl.outcome import Outcome
from chorus.ctl.source import pack_folder, spool
from chorus.ctl.talk import Talk
from chorus.ctl.terminal import note, say, say_json


def ask(client: Client, arguments: Namespace) -> int:
    """Submits a goal and follows it to its end. However it ends itself before that, the goal is cancelled."""
    goal.check(arguments)
    task = goal.task_of(arguments)
    if arguments.continues:
        task = goal.continued(client, task, with_source=arguments.dir is None)
    task_id = str(task["task_id"])
    progress = sys.stderr.isatty() and not arguments.json
    display = Json() if arguments.json else lines(task)
    with ExitStack() as opened:
        source: BinaryIO | None = None
        with attended(client, task_id) as beside:
            try:
                if arguments.dir is not None:
                    source = opened.enter_context(spool())
                    pack_folder(arguments, source)
            except BaseException:
                beside.over()  # nothing was sent
                raise
            answer = submit(client, task, source, None, beside)
            if arguments.detach:
                beside.over()
                return _detached(answer, task_id, arguments)
            note(task_id if arguments.json else f"task {task_id}; chorusctl say {task_id} TEXT speaks to it")
            with display, Talk(client, task_id, display.talk):
                ended = follow_to_end(client, task_id, beside, display.event, progress=progress)
            beside.over()
        code = goal_exit_code(ended.data) if ended.signalled is None else ended.signalled
        shown = client.get(f"/api/v1/tasks/{task_id}")
        return Outcome(client, arguments, shown, source).tell(display, code)


def _detached(answer: dict[str, Any], task_id: str, arguments: Namespace) -> int:
    if arguments.json:
        say_json(answer)
    else:
        say(task_id)
        note(f"chorusctl wait {task_id} waits for its end, chorusctl show {task_id} tells of it")
    return 0

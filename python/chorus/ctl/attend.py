"""Submits a task and stays with it to its end. When this process ends before that, the task is cancelled."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from chorus.ctl.client import Client, Refused, Unreachable
from chorus.ctl.endings import Canceller, Signalled, signals_raised
from chorus.ctl.follow import TaskEvent, follow
from chorus.ctl.problems import FAILED, MESH_FAILED, CtlError
from chorus.ctl.terminal import drop_output, note


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended: what its event `end` says, and the exit code when a signal to this process did it."""

    data: dict[str, Any]
    signalled: int | None


@contextmanager
def attended(client: Client, task_id: str) -> Iterator[Canceller]:
    """Signals are raised in it, and a task that is neither over nor sent in vain is cancelled after it."""
    with signals_raised(), Canceller(lambda: taken(client, task_id)) as beside:
        yield beside


def submit(
    client: Client,
    task: dict[str, Any],
    source: BinaryIO | None,
    stdin: BinaryIO | None,
    beside: Canceller,
) -> dict[str, Any]:
    """Sends the task and passes its notices on; returns the answer. Raises CtlError when it is refused."""
    try:
        with cancelled_by_failures(str(task["task_id"]), beside):
            answer = client.submit(task, source, stdin)
    except Refused as error:
        if error.status < 500:
            beside.over()  # it was not taken
        raise CtlError(str(error), MESH_FAILED) from None
    for notice in answer.get("notices") or ():
        note(f"chorusctl: {notice}")
    return answer


def follow_to_end(
    client: Client,
    task_id: str,
    beside: Canceller,
    show: Callable[[TaskEvent], None],
    *,
    progress: bool,
) -> Ended:
    """Shows each event of the task to its end; with `progress` it says that a signal cancels it."""
    end: TaskEvent | None = None
    last = ""
    signalled: Signalled | None = None
    with cancelled_by_failures(task_id, beside):
        while end is None:
            try:
                for event in follow(client, task_id, last):
                    # First of all: whoever comes back after it is told nothing more.
                    if event.event == "end":
                        end = event
                    last = event.id or last
                    show(event)
            except Signalled as error:
                if signalled is not None:
                    raise
                signalled = error
                if progress:
                    note("cancelling; Ctrl-C again does not wait for it")
                _cancel(task_id, signalled.code, beside)
                if signalled.number == signal.SIGHUP:
                    raise  # there is no terminal to print the rest on
    cancelled = signalled is not None and end.data.get("state") == "cancelled"
    return Ended(end.data, signalled.code if signalled is not None and cancelled else None)


@contextmanager
def cancelled_by_failures(task_id: str, beside: Canceller) -> Iterator[None]:
    """Cancels the task when what is done in it fails, or a signal ends it."""
    try:
        yield
    except Signalled as signalled:
        # A second one does not wait.
        _cancel(task_id, signalled.code, beside)
        raise
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; programs end then.
        drop_output()
        closed = Signalled(signal.SIGPIPE)
        _cancel(task_id, closed.code, beside)
        raise closed from None
    except OSError as error:
        _cancel(task_id, FAILED, beside)
        raise CtlError(f"the task was cancelled: its output cannot be written: {error.strerror}") from None
    except Unreachable as error:
        if not error.heard:
            beside.over()  # it was not taken
            raise
        raise CtlError(f"{error}; it is cancelled if an agent answers within a minute", error.code) from None


def taken(client: Client, task_id: str) -> bool:
    """Asks the mesh to cancel; whether it does, or the task has ended before."""
    try:
        with client.anew() as fresh:
            fresh.post(f"/api/v1/tasks/{task_id}/cancel", {"reason": "interrupted by the submitter"})
    except Refused as error:
        return error.status < 500
    except CtlError:
        return False
    return True


def _cancel(task_id: str, code: int, beside: Canceller) -> None:
    """Cancels before this process ends. Raises CtlError with `code` when no agent has taken it yet."""
    if not beside.told and not beside.cancel():
        raise CtlError(
            f"task {task_id} is not cancelled yet, as no agent took that; it is tried for a minute, and "
            f"chorusctl cancel {task_id} does it by hand",
            code,
        )

"""Shows a goal's run as it goes on: as lines, on a terminal above a line that lives, or as JSON."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any, Protocol, Self

from chorus.ctl.follow import TaskEvent
from chorus.ctl.patch_text import PatchedFile
from chorus.ctl.story import Line, Used
from chorus.ctl.terminal import say, say_json
from chorus.ctl.told import Told


class Display(Protocol):
    """What is told of a run goes here, from more than one thread."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def event(self, event: TaskEvent) -> None:
        """An event of the task."""

    def talk(self, item: dict[str, Any]) -> None:
        """A thing of its discussion."""

    def result(self, task: dict[str, Any], files: list[PatchedFile] | None) -> None:
        """How the task ended; `files` are those of its patch, if that was read."""

    def line(self, line: Line) -> None:
        """A line of what follows its end."""


class Lines:
    """Plain lines on standard output."""

    def __init__(self) -> None:
        self.used = Used()
        self._told = Told()
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: TaskEvent) -> None:
        """Prints what the event says, if it is for people."""
        self.used.add(event.event, event.data)
        self._print_all(self._told.event(event.event, event.data))

    def talk(self, item: dict[str, Any]) -> None:
        """Prints what was said."""
        self._print_all(self._told.talk(item))

    def result(self, task: dict[str, Any], files: list[PatchedFile] | None) -> None:
        """Prints how the task ended."""
        self._print_all(self._told.result(task, files))

    def line(self, line: Line) -> None:
        """Prints a line."""
        self._print_all([line])

    def _print_all(self, lines: Iterable[Line]) -> None:
        # What was told is asked and kept under the same lock: events and talk come from two threads.
        with self._one_at_a_time:
            for line in lines:
                self._print(line)

    def _print(self, line: Line) -> None:
        say(line.text, flush=True)


class Json:
    """A line of JSON for each event, in the form that `run --json` has."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: TaskEvent) -> None:
        """Prints the event as it came."""
        self.told(event.event, event.data, event.id or None)

    def talk(self, item: dict[str, Any]) -> None:
        """Prints what was said as an event `talk`."""
        self.told("talk", item)

    def result(self, task: dict[str, Any], files: list[PatchedFile] | None) -> None:
        """Prints the result as an event `result`."""
        self.told("result", {name: task.get(name) for name in ("task_id", "state", "reason", "result")})

    def line(self, line: Line) -> None:
        """Lines are for people; whoever reads JSON has events."""

    def told(self, event: str, data: dict[str, Any], ident: str | None = None) -> None:
        """Prints an event of this command's own, which has no id."""
        with self._one_at_a_time:
            say_json({"id": ident, "event": event, "data": data}, flush=True)


def lines(task: dict[str, Any]) -> Lines:
    """Lines for people, with what is going on now below them when standard output is a terminal."""
    if not sys.stdout.isatty():
        return Lines()
    # Loaded when it is wanted: most commands show nothing that lives.
    from chorus.ctl.live import Live

    return Live(task)

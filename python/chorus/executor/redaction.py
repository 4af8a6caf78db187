"""Cuts secrets out of a stream of output: a task's own secret values, and what SHHH, the sentinel, finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, Self

from chorus.executor.forms import forms
from chorus.process.logs import Logger
from chorus.process.sentinel import record

if TYPE_CHECKING:
    from chorus.core import Redactor, Scanner

# The core looks for no longer values.
SECRET_BYTES_MAX = 64 * 1024
# The rule that the core names for a task's own secrets. They are no findings: the task was given them.
TASK_SECRET = "task-secret"


class StreamRedactor(Protocol):
    """What goes in comes out with secrets replaced, after a bounded delay."""

    def again(self) -> Self:
        """One with the same rules and secrets, at the beginning of another stream."""

    def push(self, data: bytes) -> bytes:
        """Takes a chunk; returns what is safe to show by now."""

    def settle(self) -> bytes:
        """The stream rests: returns what is held back only because a token might just have begun."""

    def finish(self) -> bytes:
        """What was held back."""


# Makes one for a task, given the task's own secrets.
RedactorFactory = Callable[[Iterable[bytes]], StreamRedactor]


class Sentinel:
    """The core's stream redactor; what its rules find is counted and written down: rule, place and hash."""

    def __init__(
        self, secrets: Iterable[bytes] = (), *, scanner: Scanner | None = None, log: Logger | None = None
    ) -> None:
        from chorus.core import Redactor

        self._log = log
        self._redactor: Redactor = Redactor(scanner)
        self._redactor.add_secrets(
            [
                value[start : start + SECRET_BYTES_MAX]
                for value in forms(secrets)
                for start in range(0, len(value), SECRET_BYTES_MAX)
            ]
        )

    def again(self) -> Self:
        other = type(self).__new__(type(self))
        other._log, other._redactor = self._log, self._redactor.again()
        return other

    def push(self, data: bytes) -> bytes:
        return self._counted(self._redactor.push(data))

    def settle(self) -> bytes:
        return self._counted(self._redactor.settle())

    def finish(self) -> bytes:
        return self._counted(self._redactor.finish())

    def _counted(self, data: bytes) -> bytes:
        found = [finding for finding in self._redactor.take_findings() if finding.rule != TASK_SECRET]
        record(found, "task output", self._log)
        return data


def cut_text(text: str, redactor: StreamRedactor) -> str:
    """A short text without the secrets."""
    fresh = redactor.again()
    data = text.encode("utf-8", "replace")
    return (fresh.push(data) + fresh.finish()).decode("utf-8", "replace")

"""Cuts secrets out of a stream of output: a task's own secret values, and what SHHH, the sentinel, finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from chorus.process import metrics
from chorus.process.logs import Logger

if TYPE_CHECKING:
    from chorus.core import Scanner

# Shorter values would cut harmless text to pieces; the core looks for no longer ones.
SECRET_BYTES_MIN = 4
SECRET_BYTES_MAX = 64 * 1024
# The rule that the core names for them. They are no findings: the task was given them.
TASK_SECRET = "task-secret"
_MARK = f"[REDACTED:{TASK_SECRET}]".encode()


class StreamRedactor(Protocol):
    """What goes in comes out with secrets replaced, after a bounded delay."""

    def push(self, data: bytes) -> bytes:
        """Takes a chunk; returns what is safe to show by now."""

    def finish(self) -> bytes:
        """What was held back."""


# Makes one for a stream, given the task's own secrets.
RedactorFactory = Callable[[Iterable[bytes]], StreamRedactor]


class Sentinel:
    """The core's stream redactor; what its rules find is counted and written down: rule, place and hash."""

    def __init__(
        self, secrets: Iterable[bytes] = (), *, scanner: Scanner | None = None, log: Logger | None = None
    ) -> None:
        from chorus.core import Redactor

        self._redactor = Redactor(scanner)
        self._log = log
        for value in secrets:
            for start in range(0, len(value), SECRET_BYTES_MAX):
                self._redactor.add_secret(value[start : start + SECRET_BYTES_MAX])

    def push(self, data: bytes) -> bytes:
        return self._counted(self._redactor.push(data))

    def finish(self) -> bytes:
        return self._counted(self._redactor.finish())

    def _counted(self, data: bytes) -> bytes:
        for finding in self._redactor.take_findings():
            if finding.rule == TASK_SECRET:
                continue
            metrics.SHHH_FINDINGS.inc()
            metrics.SHHH_FINDINGS_BY_RULE.labels(finding.rule).inc()
            if self._log is not None:
                self._log.warning(
                    "a secret was found on its way out",
                    place="task output",
                    rule=finding.rule,
                    severity=finding.severity,
                    start=finding.start,
                    end=finding.end,
                    audit=finding.audit,
                )
        return data


def cut_text(text: str, secrets: Iterable[bytes]) -> str:
    """A short text without the secret values."""
    # Longest first: a secret that begins another must not leave the other's end behind.
    values = sorted({value for value in secrets if len(value) >= SECRET_BYTES_MIN}, key=len, reverse=True)
    data = text.encode("utf-8", "surrogateescape")
    if values:
        data = re.sub(b"|".join(map(re.escape, values)), _MARK, data)
    return data.decode("utf-8", "replace")

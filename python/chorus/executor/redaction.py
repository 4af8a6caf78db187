"""Cuts secrets out of a stream of output: a task's own secret values here, everything else by SHHH, the
sentinel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from chorus.process import metrics
from chorus.process.logs import Logger

if TYPE_CHECKING:
    from chorus.core import Scanner

# Shorter values would cut harmless text to pieces.
SECRET_BYTES_MIN = 4
_MARK = b"[REDACTED:task-secret]"


class StreamRedactor(Protocol):
    """What goes in comes out with secrets replaced, after a bounded delay."""

    def push(self, data: bytes) -> bytes:
        """Takes a chunk; returns what is safe to show by now."""

    def finish(self) -> bytes:
        """What was held back."""


RedactorFactory = Callable[[], StreamRedactor]


class LiteralRedactor:
    """Replaces given values, also when they are split over chunks. Holds back only what may begin one."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        # Longest first: a secret that begins another must not leave the other's end behind.
        values = sorted({value for value in secrets if len(value) >= SECRET_BYTES_MIN}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, values))) if values else None
        self._values = values
        self._longest = len(values[0]) if values else 0
        self._held = b""

    def push(self, data: bytes) -> bytes:
        if self._pattern is None:
            return data
        data = self._held + data
        out: list[bytes] = []
        position = 0
        keep = self._begins_at(data)
        for match in self._pattern.finditer(data):
            # A match may be the beginning of a longer secret that the chunk cuts off.
            if match.start() >= keep:
                break
            out += (data[position : match.start()], _MARK)
            position = match.end()
        keep = max(keep, position)
        out.append(data[position:keep])
        self._held = data[keep:]
        return b"".join(out)

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return self._pattern.sub(_MARK, held) if self._pattern else held

    def _begins_at(self, data: bytes) -> int:
        """The first place near the end from where a secret may go on in the next chunk."""
        for place in range(max(0, len(data) - self._longest + 1), len(data)):
            tail = data[place:]
            if any(len(value) > len(tail) and value.startswith(tail) for value in self._values):
                return place
        return len(data)


class Chain:
    """One redactor after another."""

    def __init__(self, *parts: StreamRedactor) -> None:
        self._parts = parts

    def push(self, data: bytes) -> bytes:
        for part in self._parts:
            data = part.push(data)
        return data

    def finish(self) -> bytes:
        data = b""
        for part in self._parts:
            data = (part.push(data) if data else b"") + part.finish()
        return data


class Sentinel:
    """The core's stream redactor; what it finds is counted and written down: rule, place and hash."""

    def __init__(self, scanner: Scanner | None = None, log: Logger | None = None) -> None:
        from chorus.core import Redactor

        self._redactor = Redactor(scanner)
        self._log = log

    def push(self, data: bytes) -> bytes:
        return self._counted(self._redactor.push(data))

    def finish(self) -> bytes:
        return self._counted(self._redactor.finish())

    def _counted(self, data: bytes) -> bytes:
        for finding in self._redactor.take_findings():
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
    redactor = LiteralRedactor(secrets)
    data = text.encode("utf-8", "surrogateescape")
    return (redactor.push(data) + redactor.finish()).decode("utf-8", "replace")

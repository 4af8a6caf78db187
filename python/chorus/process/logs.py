"""One structured log stream on stderr: who (process, agent, task), what happened, and with which values.

JSON or readable lines, each passed through SHHH, the sentinel that cuts secrets out of what leaves a process.
Everything goes through stdlib `logging`, so that libraries' lines have the same form.
"""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, Self

from chorus.process.log_kinds import Kinds
from chorus.wire.visible import visible, visible_json

# One line; longer ones (a huge traceback) are cut, so that no line can flood the stream.
LINE_MAX_BYTES = 16 * 1024

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "fields", "taskName"}

Write = Callable[[bytes], object]


class Sentinel(Protocol):
    """What a log needs of the core's `Scanner`."""

    def redact(self, text: bytes, /) -> bytes:
        """The text without secrets."""

    def redact_json(self, json: bytes, /) -> tuple[bytes, Any]:
        """The document with no secret in a string or name, and what was found."""


class Logger:
    """A logger whose fields travel with it: `log.info("task started", attempt=2)`, `log.bind(task_id=…)`."""

    def __init__(self, logger: logging.Logger, fields: dict[str, Any] | None = None) -> None:
        self._logger = logger
        self._fields = fields or {}

    def bind(self, **fields: Any) -> Self:
        """A logger that adds these fields to each line."""
        return type(self)(self._logger, {**self._fields, **fields})

    def debug(self, event: str, *args: Any, **fields: Any) -> None:
        """For the developer."""
        self._log(logging.DEBUG, event, args, fields)

    def info(self, event: str, *args: Any, **fields: Any) -> None:
        """What the operator may want to know."""
        self._log(logging.INFO, event, args, fields)

    def warning(self, event: str, *args: Any, **fields: Any) -> None:
        """What the operator should know; the agent copes."""
        self._log(logging.WARNING, event, args, fields)

    def error(self, event: str, *args: Any, **fields: Any) -> None:
        """What somebody has to mend."""
        self._log(logging.ERROR, event, args, fields)

    def exception(self, event: str, *args: Any, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._log(logging.ERROR, event, args, {"exc_info": True, **fields})

    def _log(self, level: int, event: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            exc_info = fields.pop("exc_info", None)
            extra = {"fields": {**self._fields, **fields}}
            self._logger.log(level, event, *args, exc_info=exc_info, extra=extra)


def bind(**fields: Any) -> Logger:
    """A logger of this process whose lines carry the fields, `task_id` above all."""
    return Logger(logging.getLogger("chorus"), fields)


class _Line(logging.Formatter):
    """Common to both forms: collects the fields of a record in their order."""

    def __init__(self, process: str, agent_id: str) -> None:
        super().__init__()
        self._who = {"process": process, "agent_id": agent_id}

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        given = {key: value for key, value in vars(record).items() if key not in _PLAIN_RECORD}
        given.update(getattr(record, "fields", {}))
        task_id = given.pop("task_id", None)
        fields = {**self._who, **({"task_id": task_id} if task_id else {}), "event": record.getMessage()}
        fields.update((key, value) for key, value in given.items() if key not in fields)
        if not record.name.startswith("chorus"):
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = self.formatException(record.exc_info)
        return fields


class JsonLine(_Line):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": record.levelname.lower(), **self.fields(record)}
        return visible_json(line, default=str)


class TextLine(_Line):
    """One line for a person: time, level, process, what happened, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        fields = self.fields(record)
        moment = datetime.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        event = fields.pop("event")
        process = fields.pop("process")
        fields.pop("agent_id")
        trace = fields.pop("exception", None)
        rest = "".join(f"  {key}={value}" for key, value in fields.items())
        # What others say may stand in it: it begins no line of its own and moves no cursor.
        line = visible(f"{moment} {record.levelname.lower():7} {process:11} {event}{rest}")
        return f"{line}\n{_indented(trace)}" if trace else line


def _indented(trace: str) -> str:
    """A traceback of several lines, none of which looks like a line of the log."""
    return "\n".join(f"    {visible(line)}" for line in trace.split("\n"))


class RedactingHandler(logging.Handler):
    """Writes each line in one piece, without the secrets in it; of one kind only so many a minute."""

    def __init__(
        self, write: Write, sentinel: Sentinel | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._write = write
        self._sentinel = sentinel
        self._clock = clock
        self._kinds = Kinds()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        now = self._clock()
        for left_out in self._kinds.over(now):
            self._emit(left_out)
        if self._kinds.admits(record, now):
            self._emit(record)

    def _emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "replace")
            if len(line) > LINE_MAX_BYTES:
                # Cut the inner text, not the line: a JSON line must stay one.
                # And not through a secret: half of one would not be found.
                record.msg = self._clean(record.getMessage())[: LINE_MAX_BYTES // 8] + " … (cut)"
                record.args, record.exc_info, record.fields = None, None, {}
                line = self.format(record).encode("utf-8", "replace")[:LINE_MAX_BYTES]
            self._write(self._without_secrets(line) + b"\n")
        except (OSError, ValueError):
            pass  # nobody is left to read the log; the work matters more
        except Exception:
            self.handleError(record)

    def _without_secrets(self, line: bytes) -> bytes:
        if self._sentinel is None:
            return line
        clean = json_without_secrets(line, self._sentinel) if isinstance(self.formatter, JsonLine) else None
        return self._sentinel.redact(line) if clean is None else clean

    def _clean(self, text: str) -> str:
        if self._sentinel is None:
            return text
        return self._sentinel.redact(text.encode("utf-8", "replace")).decode("utf-8", "replace")


def json_without_secrets(line: bytes, sentinel: Sentinel) -> bytes | None:
    """A JSON object without secrets, the very same bytes if there are none. None for another line, and for
    one with half a character.

    String by string: as one text, the end of one and the name of the next could look like a secret.
    """
    from chorus.core import CoreError

    if not line.startswith(b"{"):
        return None
    try:
        clean, found = sentinel.redact_json(line)
    except CoreError:
        return None
    return clean if found else line


def _to_stderr(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()


def built_in_rules() -> Sentinel | None:
    """The core's scanner; None where the extension is not built."""
    try:
        from chorus.core import Scanner
    except ImportError:
        return None
    return Scanner()


def configure(
    process: str,
    agent_id: str,
    level: str = "info",
    format: Literal["auto", "json", "text"] = "auto",
    *,
    write: Write | None = None,
    sentinel: Sentinel | None = None,
) -> Logger:
    """Sets up logging for this process, replacing what was there, and gives its logger.

    `write` takes whole lines; without it they go to stderr.
    """
    as_json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    handler = RedactingHandler(write or _to_stderr, sentinel or built_in_rules())
    handler.setFormatter((JsonLine if as_json else TextLine)(process, agent_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("chorus").setLevel(LEVELS.get(level, logging.INFO))
    logging.captureWarnings(True)
    return Logger(logging.getLogger(f"chorus.{process}"))

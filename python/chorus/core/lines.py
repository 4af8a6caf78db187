"""The core's own log lines on their way into Python's `logging`; until fetched here they wait in the core."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from chorus._core import CoreLines

# Lines handled at one go, so that a flood of them leaves the event loop to others in between.
BATCH_LINES = 64
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log = logging.getLogger("chorus.core")


@contextmanager
def core_lines(level: str = "info") -> Iterator[None]:
    """While it is entered, what this process's cores log goes to the logger `chorus.core`.

    Needs a running event loop. A record's values are in its attribute `fields`, with `target`, the part of
    the core that speaks. What came faster than it was handled is dropped and counted in a line of its own.
    Nobody else in this process may have it entered: CoreError `refused`.
    """
    lines = CoreLines.open(level)
    loop = asyncio.get_running_loop()
    loop.add_reader(lines.fileno(), _pass_on, lines)
    try:
        yield
    finally:
        loop.remove_reader(lines.fileno())
        while _pass_on(lines):
            pass
        lines.close()


def _pass_on(lines: CoreLines) -> bool:
    """Hands one batch to logging; whether there was any."""
    batch, dropped = lines.take(BATCH_LINES)
    for line in batch:
        _log(orjson.loads(line))
    if dropped:
        log.warning(
            "lines of the core were dropped: they came too fast", extra={"fields": {"count": dropped}}
        )
    return bool(batch)


def _log(line: dict[str, Any]) -> None:
    level = _LEVELS[line["level"]]
    if not log.isEnabledFor(level):
        return
    fields = {"target": line["target"], **line["fields"]}
    record = log.makeRecord(log.name, level, "", 0, line["message"], (), None, extra={"fields": fields})
    record.created = line["time"]
    log.handle(record)

"""Everything that chorusctl prints goes through here, so that no text of others reaches a terminal as it is.

Exact bytes leave by `write_bytes` alone: the output of one's own `run`, and what is asked for by `--raw`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

from chorus.wire.visible import visible, visible_json

TAB_COLUMNS: Final = 8
_LINE_CLEAR: Final = "\r\x1b[K"


def prepare() -> None:
    """Makes the three standard streams usable, whatever this process was started with."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed (`>&-`): the next file that is opened must not take its place. Writing to it fails, as
            # it has to.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Of another encoding than UTF-8, an escape is shown for what that has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """What is still to be written goes nowhere: its reader has gone, or it cannot be written. Otherwise
    Python complains when it flushes at exit.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
            with contextlib.suppress(OSError):
                stream.flush()
    os.close(nowhere)


def say(text: str, *, flush: bool = False) -> None:
    """One line on standard output."""
    _print(visible(text), sys.stdout, flush)


def say_lines(text: str) -> None:
    """Lines on standard output."""
    _print(visible(text, lines=True), sys.stdout, False)


def say_json(value: Any, *, flush: bool = False) -> None:
    """A value as a line of JSON on standard output."""
    _print(visible_json(value), sys.stdout, flush)


def note(text: str) -> None:
    """One line on standard error, if somebody reads that."""
    with contextlib.suppress(OSError):
        _print(visible(text), sys.stderr, True)


def note_lines(text: str) -> None:
    """Lines on standard error; each piece of somebody else's text in them has to be one line already."""
    with contextlib.suppress(OSError):
        _print(visible(text, lines=True), sys.stderr, True)


def progress(text: str) -> None:
    """A line on standard error that the next one replaces; an empty one clears it."""
    with contextlib.suppress(OSError):
        print(f"{_LINE_CLEAR}{visible(text)}", end="", file=sys.stderr, flush=True)


def write_bytes(content: bytes, *, stderr: bool = False) -> None:
    """Exact bytes, at once."""
    text = sys.stderr if stderr else sys.stdout
    with _named(text):
        text.buffer.write(content)
        text.buffer.flush()


class Output:
    """The output of a task for reading: lines stay, tabs become spaces, other controls are written out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def push(self, content: bytes, *, end: bool = False) -> None:
        """Prints the next piece; `end` after the last one."""
        text = self._held + self._decoder.decode(content, end)
        self._held = ""
        if text.endswith("\r") and not end:
            # The newline that makes it the end of a line may come with the next piece.
            text, self._held = text[:-1], "\r"
        text = text.replace("\r\n", "\n").expandtabs(TAB_COLUMNS)
        _print(visible(text, lines=True), sys.stdout, True, line_end="")


def _print(text: str, stream: TextIO, flush: bool, line_end: str = "\n") -> None:
    encoding = stream.encoding or "utf-8"
    # A terminal of another encoding shows an escape, and the command does not end.
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    with _named(stream):
        print(shown, end=line_end, file=stream, flush=flush)


@contextlib.contextmanager
def _named(stream: TextIO) -> Iterator[None]:
    """Errors of writing say where to."""
    try:
        yield
    except OSError as error:
        error.filename = "standard error" if stream is sys.stderr else "standard output"
        raise

"""How chorusctl fails: an exit code and a sentence that says what to do."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
USAGE: Final = 2
# `run`: what its own codes mean, beside those of the command.
TIMED_OUT: Final = 124
MESH_FAILED: Final = 125
CANCELLED: Final = 130


class CtlError(Exception):
    """Ends the command with `code` after the message was printed."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code

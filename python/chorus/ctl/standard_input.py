"""Standard input of `run`: read for the task with -i, and without it noticed when somebody sends some."""

from __future__ import annotations

import array
import fcntl
import os
import stat
import sys
import termios
from typing import BinaryIO, Final

from chorus.ctl.problems import USAGE, CtlError

_PIECE_BYTES: Final = 1024 * 1024


def read_into(out: BinaryIO) -> None:
    """Copies standard input to its end. Raises CtlError when it is more than a task takes."""
    # Loaded when it is wanted: most runs read nothing.
    from chorus.blobs import BLOB_MAX_BYTES

    size = 0
    try:
        while piece := sys.stdin.buffer.read(_PIECE_BYTES):
            size += len(piece)
            if size > BLOB_MAX_BYTES:
                raise CtlError(
                    f"-i: standard input has more than {BLOB_MAX_BYTES} bytes, which is the most that a task "
                    "takes; let the command fetch the rest itself",
                    USAGE,
                )
            out.write(piece)
    except OSError as error:
        raise CtlError(f"-i: standard input cannot be read: {error.strerror}", USAGE) from None


def unread() -> bool:
    """Whether something waits on standard input that nobody will read: a file with content, or a pipe in
    which there is some.
    """
    try:
        handle = sys.stdin.fileno()
        info = os.fstat(handle)
        if stat.S_ISREG(info.st_mode):
            return info.st_size > os.lseek(handle, 0, os.SEEK_CUR)
        if stat.S_ISFIFO(info.st_mode) or stat.S_ISSOCK(info.st_mode):
            waiting = array.array("i", [0])
            fcntl.ioctl(handle, termios.FIONREAD, waiting)
            return waiting[0] > 0
    except (OSError, ValueError, AttributeError):
        pass  # it is closed, or a test's
    return False

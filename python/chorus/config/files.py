"""Private files that are written in one step, and folders whose names are on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE_FILE_MODE = 0o600
_BUFFER_BYTES = 1024 * 1024


@contextmanager
def new_private(path: Path) -> Iterator[BinaryIO]:
    """A file that only this user can read, to be written. When the block ends without an error, its content
    is on the disk and it has taken the place of `path`.
    """
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    with os.fdopen(handle, "wb", buffering=_BUFFER_BYTES) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only this user can read, in one step."""
    with new_private(path) as file:
        file.write(text.encode())


def sync_folder(path: Path) -> None:
    """The names in a folder are on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

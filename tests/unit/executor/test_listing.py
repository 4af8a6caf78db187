"""The list of a workspace's files, which the task's own files make."""

from __future__ import annotations

import pytest

from chorus.executor.backend import FileEntry, SandboxError
from chorus.executor.docker import sandbox


def test_entries_of_each_kind() -> None:
    listing = b"f\x0012\0a/b\0\0l\x000\0c\0a/b\0d\x000\0a\0\0p\x000\0\xff\0\0"
    assert sandbox._read_listing(listing) == [
        FileEntry("a/b", "file", 12),
        FileEntry("c", "link", 0, "a/b"),
        FileEntry("a", "directory", 0),
        FileEntry("\udcff", "other", 0),
    ]


@pytest.mark.parametrize("size", [b"", b"-1", b"x", "²".encode(), b"9" * 5000])
def test_a_size_that_is_none(size: bytes) -> None:
    assert sandbox._read_listing(b"f\0" + size + b"\0a\0\0") == [FileEntry("a", "file", 0)]


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_FILES_MAX", 2)
    with pytest.raises(SandboxError, match="more than 2 files"):
        sandbox._read_listing(b"f\x001\0a\0\0" * 3)

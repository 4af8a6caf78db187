"""The tree of an archive is what unpacking it would leave, read by a process of its own."""

from __future__ import annotations

import asyncio
import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from patch_trees import picked_up, text

from chorus.archives import confined, index
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge
from chorus.executor.patch import File, tree_of_tar
from chorus.executor.patch.tree import LINK


def packed(into: Path, *members: tuple[str, bytes, bytes, int, str]) -> Path:
    """A tar of (name, kind, content, mode, target of a link)."""
    with tarfile.open(into, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, content, mode, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode, info.linkname = kind, len(content), mode, target
            tar.addfile(info, io.BytesIO(content))
    return into


def file(name: str, content: bytes = b"x\n", mode: int = 0o644) -> tuple[str, bytes, bytes, int, str]:
    return name, tarfile.REGTYPE, content, mode, ""


def other(name: str, kind: bytes, target: str = "") -> tuple[str, bytes, bytes, int, str]:
    return name, kind, b"", 0o755, target


async def test_it_is_what_unpacking_leaves(tmp_path: Path) -> None:
    """Whatever the order: the last of one name counts, hard links are files, and folders give way."""
    archive = packed(
        tmp_path / "a.tar",
        file("./a/one", b"first"),
        other("b", tarfile.DIRTYPE),
        file("b/run.sh", b"#!/bin/sh\n", 0o750),
        other("b/link", tarfile.SYMTYPE, "../a/one"),
        other("b/hard", tarfile.LNKTYPE, "a/one"),
        file("a/one", b"second" * 10_000),
        file("\udcff\u00e4" + "n" * 200, b""),
        file("gone", b"x"),
        other("gone", tarfile.SYMTYPE, "a"),
    )
    tree = await tree_of_tar(archive)
    (tmp_path / "out").mkdir()
    unpack = ["tar", "-xf", str(archive), "-C", str(tmp_path / "out")]
    await asyncio.to_thread(subprocess.run, unpack, check=True)
    unpacked = picked_up(tmp_path / "out")
    assert tree == unpacked
    assert tree["b/run.sh"].mode == "100755"
    assert tree["b/link"] == File.of(LINK, b"../a/one")
    assert {path: each.read() for path, each in tree.items()} == {
        path: each.read() for path, each in unpacked.items()
    }


async def test_what_git_does_not_know_is_passed_over(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "a.tar", other("fifo", tarfile.FIFOTYPE), other("dev", tarfile.CHRTYPE), file("a")
    )
    assert await tree_of_tar(archive) == {"a": text("x\n")}


@pytest.mark.parametrize(
    "members",
    [
        [file("../a")],
        [file("/a")],
        [file("a"), file("a/b")],
        [other("a", tarfile.SYMTYPE, "/etc"), file("a/passwd")],
        [other("a", tarfile.LNKTYPE, "/etc/passwd")],
    ],
    ids=["out", "absolute", "below a file", "below a link", "hard link out"],
)
async def test_an_archive_that_lies_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes, bytes, int, str]]
) -> None:
    with pytest.raises(ArchiveRefused):
        await tree_of_tar(packed(tmp_path / "a.tar", *members))


async def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar", file("a"))
    archive.write_bytes(gzip.compress(archive.read_bytes()))
    with pytest.raises(ArchiveRefused, match="compressed"):
        await tree_of_tar(archive)


def test_files_and_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path / "a.tar", *(file(f"{number}") for number in range(20)))
    size = archive.stat().st_size
    for limit in ("FILES_MAX", "NAMES_BYTES_MAX"):
        with monkeypatch.context() as patched, archive.open("rb") as opened:
            patched.setattr(index, limit, 10)
            with pytest.raises(ArchiveTooLarge):
                index.index(opened, bytes_max=size)


@pytest.mark.heavy
async def test_the_most_files_fit_the_memory_of_the_child(tmp_path: Path) -> None:
    """An archive at the bound is listed, and one beyond it is refused by name, not by memory."""
    with (tmp_path / "a.tar").open("wb") as out:
        for number in range(index.FILES_MAX + 1):
            if number == index.FILES_MAX:
                end = out.tell()
            out.write(_header(f"{number % 1000:0100d}/{number:030d}"))
        out.write(bytes(1024))
    with pytest.raises(ArchiveTooLarge, match="200000 files"):
        await confined.index(tmp_path / "a.tar")
    with (tmp_path / "a.tar").open("r+b") as out:
        out.truncate(end + 1024)
        out.seek(end)
        out.write(bytes(1024))
    assert len(await confined.index(tmp_path / "a.tar")) == index.FILES_MAX


def _header(name: str) -> bytes:
    return tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)

"""No archive leads out of the workspace."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from pathlib import Path

import pytest

from chorus.archives.clean import from_file, from_files, sanitize
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, 0o6777
            tar.addfile(member)
    data.seek(0)
    return data


@pytest.mark.parametrize(
    "members",
    [
        [("/abs", tarfile.REGTYPE, "")],
        [("../up", tarfile.REGTYPE, "")],
        [("a/../../up", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/etc/passwd")],
        [("link", tarfile.SYMTYPE, "../..")],
        [("a", tarfile.SYMTYPE, "."), ("a/b", tarfile.SYMTYPE, "../..")],
        [("d/l", tarfile.SYMTYPE, "l"), ("d/l/x", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../x")],
        [("hard", tarfile.LNKTYPE, "/etc/shadow")],
        [("fifo", tarfile.FIFOTYPE, "")],
        [("char", tarfile.CHRTYPE, "")],
        [("block", tarfile.BLKTYPE, "")],
    ],
)
def test_refused_by_name(members: list[tuple[str, bytes, str]], tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=members[-1][0].replace(".", r"\.")):
        sanitize(archive(*members), tmp_path / "out.tar", bytes_max=1 << 20)


def test_what_may_pass_passes_without_its_special_bits(tmp_path: Path) -> None:
    data = archive(
        ("./", tarfile.DIRTYPE, ""),
        ("d", tarfile.DIRTYPE, ""),
        ("d/l", tarfile.SYMTYPE, "../f"),
        ("f", tarfile.REGTYPE, ""),
    )
    packed = io.BytesIO(gzip.compress(data.getvalue()))
    sanitize(packed, tmp_path / "out.tar", bytes_max=1 << 20)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert [(m.name, m.mode & 0o7000) for m in tar] == [("d", 0), ("d/l", 0), ("f", 0)]


def test_a_bomb_is_too_large(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = 10 << 20
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    data.seek(0)
    with pytest.raises(ArchiveTooLarge):
        sanitize(data, tmp_path / "out.tar", bytes_max=1 << 20)


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x1f\x8b" + b"x" * 100, bytes(10), b"x" * 1024])
def test_garbage_is_refused_or_empty(data: bytes, tmp_path: Path) -> None:
    with contextlib.suppress(ArchiveRefused):
        sanitize(io.BytesIO(data), tmp_path / "out.tar", bytes_max=1 << 20)
        with tarfile.open(tmp_path / "out.tar") as tar:
            assert tar.getnames() == []


def test_inline_scripts_can_be_run(tmp_path: Path) -> None:
    from_files({"a/run.sh": "#!/bin/sh\n", "b": "x"}, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert [(member.name, member.mode) for member in tar] == [("a/run.sh", 0o755), ("b", 0o644)]


def test_one_file_becomes_an_archive(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * 1000)
    from_file("stdin", tmp_path / "blob", tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        [member] = tar.getmembers()
        content = tar.extractfile(member)
        assert (member.name, content and content.read()) == ("stdin", b"x" * 1000)

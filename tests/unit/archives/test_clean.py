"""No archive leads out of the workspace."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        [("abs-link", tarfile.SYMTYPE, "/etc"), ("abs-link/x", tarfile.REGTYPE, "")],
        [("a", tarfile.SYMTYPE, "/etc"), ("b", tarfile.SYMTYPE, "a"), ("b/x", tarfile.REGTYPE, "")],
        [("a", tarfile.SYMTYPE, "/etc"), ("a/link", tarfile.SYMTYPE, "x")],
        [("a", tarfile.SYMTYPE, "/etc"), ("hard", tarfile.LNKTYPE, "a/passwd")],
        [("d/l", tarfile.SYMTYPE, "../x"), ("hard-to-link", tarfile.LNKTYPE, "d/l")],
        [("link", tarfile.SYMTYPE, "../..")],
        [("a", tarfile.SYMTYPE, "."), ("a/b", tarfile.SYMTYPE, "../..")],
        [("d/l", tarfile.SYMTYPE, "l"), ("d/l/x", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../x")],
        [("hard", tarfile.LNKTYPE, "/etc/shadow")],
        [("hard", tarfile.LNKTYPE, "nothing")],
        [("d", tarfile.DIRTYPE, ""), ("hard", tarfile.LNKTYPE, "d")],
        [("a", tarfile.REGTYPE, ""), ("a/below", tarfile.REGTYPE, "")],
        [("a/b", tarfile.REGTYPE, ""), ("a/b/c/below", tarfile.DIRTYPE, "")],
        [("full/f", tarfile.REGTYPE, ""), ("full", tarfile.REGTYPE, "")],
        [("full/f", tarfile.REGTYPE, ""), ("full", tarfile.SYMTYPE, "/tmp")],
        [("no-target", tarfile.SYMTYPE, "")],
        [("fifo", tarfile.FIFOTYPE, "")],
        [("char", tarfile.CHRTYPE, "")],
        [("block", tarfile.BLKTYPE, "")],
    ],
)
def test_refused_by_name(members: list[tuple[str, bytes, str]], tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=members[-1][0].replace(".", r"\.")):
        sanitize(archive(*members), tmp_path / "out.tar", bytes_max=1 << 20)


@pytest.mark.parametrize("name", ["n" * 256, "d/" + "ü" * 128])
def test_names_that_no_file_system_holds(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match="255 bytes"):
        sanitize(archive((name, tarfile.REGTYPE, "")), tmp_path / "out.tar", bytes_max=1 << 20)
    sanitize(archive((name[:-3], tarfile.REGTYPE, "")), tmp_path / "out.tar", bytes_max=1 << 20)


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


def cleaned(data: io.BytesIO, into: Path) -> list[tarfile.TarInfo]:
    sanitize(data, into, bytes_max=1 << 20)
    with tarfile.open(into) as tar:
        return tar.getmembers()


def test_absolute_links_are_kept_and_nothing_is_written_through_them(tmp_path: Path) -> None:
    data = archive(
        ("venv/python", tarfile.SYMTYPE, "/usr/bin/python3"),
        ("venv/python3", tarfile.SYMTYPE, "python"),
        ("venv/lib", tarfile.SYMTYPE, "/usr/lib"),
        ("venv/above", tarfile.SYMTYPE, "lib/../../x"),
        ("hard", tarfile.LNKTYPE, "venv/python"),
        ("venv/lib", tarfile.REGTYPE, ""),
        ("venv/lib", tarfile.DIRTYPE, ""),
        ("venv/lib/x", tarfile.REGTYPE, ""),
    )
    found = [(member.name, member.type, member.linkname) for member in cleaned(data, tmp_path / "out.tar")]
    assert found == [
        ("venv/python", tarfile.SYMTYPE, "/usr/bin/python3"),
        ("venv/python3", tarfile.SYMTYPE, "python"),
        ("venv/lib", tarfile.SYMTYPE, "/usr/lib"),
        ("venv/above", tarfile.SYMTYPE, "lib/../../x"),
        ("hard", tarfile.SYMTYPE, "/usr/bin/python3"),
        ("venv/lib", tarfile.REGTYPE, ""),
        ("venv/lib", tarfile.DIRTYPE, ""),
        ("venv/lib/x", tarfile.REGTYPE, ""),
    ]


def test_what_lies_behind_a_link_is_written_where_it_lies(tmp_path: Path) -> None:
    """Programs that unpack put some links in their places only at the end."""
    data = archive(
        ("d/l", tarfile.SYMTYPE, "../e"), ("d/l/f", tarfile.REGTYPE, ""), ("h", tarfile.LNKTYPE, "d/l/f")
    )
    found = [(member.name, member.linkname) for member in cleaned(data, tmp_path / "out.tar")]
    assert found == [("d/l", "../e"), ("e/f", ""), ("h", "e/f")]


def test_modes_are_kept_and_folders_are_closed_last(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, mode in (
            ("d", tarfile.DIRTYPE, 0o555),
            ("d/f", tarfile.REGTYPE, 0o444),
            ("other", tarfile.REGTYPE, 0o040),
            ("d/again", tarfile.REGTYPE, 0o751),
            ("none", tarfile.DIRTYPE, 0),
            ("open", tarfile.DIRTYPE, 0o1777),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            tar.addfile(member)
    data.seek(0)
    assert [(member.name, member.mode) for member in cleaned(data, tmp_path / "out.tar")] == [
        ("d", 0o755),
        ("d/f", 0o444),
        ("other", 0o440),
        ("d/again", 0o751),
        ("none", 0o700),
        ("open", 0o777),
        ("none", 0o500),
        ("d", 0o555),
    ]


MEMBERS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
        st.lists(st.sampled_from(["a", "b", "..", "/tmp"]), min_size=1, max_size=3).map("/".join),
        st.sampled_from([0o755, 0o555, 0o500, 0o000]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(MEMBERS)
def test_what_is_taken_can_be_unpacked(members: list[tuple[str, bytes, str, int]]) -> None:
    """By a user, as in a sandbox, who has no right to what is closed."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, target, mode in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.linkname = kind, mode, target
            tar.addfile(member)
    data.seek(0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        clean, into = Path(place, "out.tar"), Path(place, "into")
        try:
            sanitize(data, clean, bytes_max=1 << 20)
        except ArchiveRefused:
            return
        into.mkdir()
        user = {}
        if os.geteuid() == 0:
            Path(place).chmod(0o755)
            os.chown(into, 65534, 65534)
            user = {"user": 65534, "group": 65534, "extra_groups": []}
        unpack = ["tar", "-x", "-p", "-P", "-f", str(clean), "-C", str(into), "--no-same-owner"]
        done = subprocess.run(unpack, stderr=subprocess.PIPE, check=False, **user)  # type: ignore[call-overload]
        assert (done.returncode, done.stderr) == (0, b"")


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

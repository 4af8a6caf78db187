"""What honest programs make is read as it was meant; anything else is read or refused, and never more."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.archives.clean import sanitize
from chorus.archives.errors import ArchiveRefused
from chorus.archives.gunzip import open_stream
from chorus.archives.tar import Tar
from chorus.testing import hostile_archives as hostile

MIB = hostile.MIB
LONG = "d" * 90 + "/" + "ü" * 100 + "/" + "f" * 120


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all kinds that a source may have."""
    root = tmp_path / "tree"
    (root / LONG).parent.mkdir(parents=True)
    (root / LONG).write_bytes(b"long")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "big").write_bytes(os.urandom(700_000))
    (root / "link").symlink_to("run.sh")
    (root / "far").symlink_to(LONG)
    (root / "hard").hardlink_to(root / "big")
    (root / "empty").mkdir()
    os.utime(root / "run.sh", ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    os.utime(root / "big", (-5, -5))
    return root


Seen = dict[str, tuple[str, bytes | str]]


def seen(data: bytes, tmp_path: Path) -> Seen:
    """Every member of an archive once it is clean, by name."""
    sanitize(io.BytesIO(data), tmp_path / "clean.tar", bytes_max=64 * MIB)
    found: Seen = {}
    with tarfile.open(tmp_path / "clean.tar", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = member.name.removeprefix("tree/")
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                found[name] = ("file", content.read())
            elif member.isdir():
                found[name] = ("folder", "")
            else:
                found[name] = ("link", member.linkname.removeprefix("tree/"))
    return found


def check(found: Seen, tree: Path) -> None:
    assert found[LONG] == ("file", b"long")
    assert found["run.sh"] == ("file", b"#!/bin/sh\n")
    big = ("file", (tree / "big").read_bytes())
    # Whichever of the two came first.
    assert {found["big"], found["hard"]} in ({big, ("link", "hard")}, {big, ("link", "big")}, {big})
    assert found["link"] == ("link", "run.sh")
    assert found["far"] == ("link", LONG)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archives_of_python(format: int, mode: str, tree: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format) as tar:  # type: ignore[call-overload]
        tar.add(tree, "tree")
    found = seen(out.getvalue(), tmp_path)
    check(found, tree)
    assert found["empty"] == ("folder", "")


def test_archives_of_python_in_the_oldest_form(tmp_path: Path) -> None:
    name = "p" * 100 + "/" + "f" * 90
    data = hostile.plain({name: b"1", "g": b"2" * 600}, tarfile.USTAR_FORMAT)
    assert seen(data, tmp_path) == {name: ("file", b"1"), "g": ("file", b"2" * 600)}


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "posix"])
@pytest.mark.parametrize("more", [(), ("-z",), ("--xattrs",), ("--sort=name", "--owner=0", "--mtime=@0")])
def test_archives_of_gnu_tar(format: str, more: tuple[str, ...], tree: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        ["tar", f"--format={format}", *more, "-c", "-f", "-", "-C", str(tree.parent), "tree"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    check(seen(made.stdout, tmp_path), tree)


def test_archives_of_git(tree: Path, tmp_path: Path) -> None:
    def git(*words: str) -> bytes:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        done = subprocess.run(["git", *identity, *words], cwd=tree, stdout=subprocess.PIPE, check=True)
        return done.stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "m")
    plain = git("archive", "--format=tar", "--prefix=tree/", "HEAD")
    assert b"comment=" in plain[:2048]  # the global header with the commit
    for data in (plain, git("archive", "--format=tar.gz", "--prefix=tree/", "HEAD")):
        check(seen(data, tmp_path), tree)


def test_archives_of_bsdtar(tmp_path: Path) -> None:
    """Its pax records: times with fractions and before the epoch, attributes in two forms, a binary name."""
    records = b"".join(
        hostile.record(key, value)
        for key, value in (
            (b"LIBARCHIVE.creationtime", b"1700000000.5"),
            (b"SCHILY.xattr.user.mime_type", b"\0\n=text" + b"x" * 60_000),
            (b"LIBARCHIVE.xattr.user.mime_type", b"dGV4dA" + b"A" * 80_000),
            (b"mtime", b"-1.25"),
            (b"hdrcharset", b"BINARY"),
            (b"path", b"\xff\xfe"),
            (b"size", b"3"),
        )
    )
    data = (
        hostile.pax(records) + hostile.header(b"PaxHeader/x", b"0", 3) + hostile.padded(b"abc") + hostile.END
    )
    assert seen(data, tmp_path) == {"\udcff\udcfe": ("file", b"abc")}


def test_archives_of_npm(tmp_path: Path) -> None:
    """A prefix for all, no folders, several gzip members, zeros behind them."""
    data = hostile.plain({"package/package.json": b"{}", "package/lib/a.js": b"a"}, tarfile.USTAR_FORMAT)
    packed = gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(512)
    assert seen(packed, tmp_path) == {
        "package/package.json": ("file", b"{}"),
        "package/lib/a.js": ("file", b"a"),
    }


def test_old_archives(tmp_path: Path) -> None:
    """No magic, NUL for a file, a slash for a folder, a signed checksum."""
    signed = bytearray(hostile.header("é".encode(), b"\0", magic=b""))
    signed[148:156] = b"%06o\0 " % (
        sum(byte if byte < 128 else byte - 256 for byte in signed[:148] + signed[156:]) + 256
    )
    data = hostile.header(b"d/", b"\0", magic=b"") + hostile.header(b"d/f", b"\0", 1, magic=b"")
    data += hostile.padded(b"x") + bytes(signed) + hostile.END
    assert seen(data, tmp_path) == {"d": ("folder", ""), "d/f": ("file", b"x"), "é": ("file", b"")}


def test_a_later_header_wins_and_serves_one_member(tmp_path: Path) -> None:
    data = (
        hostile.pax(hostile.record(b"path", b"first"))
        + hostile.pax(hostile.record(b"path", b"second"))
        + hostile.header(b"a")
        + hostile.header(b"b")
        + hostile.END
    )
    assert list(seen(data, tmp_path)) == ["second", "b"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (hostile.plain({"f": b"x" * 5000})[:3000], "ends too early, in f"),
        (hostile.plain({"f": b""})[:100], "ends too early"),
        (gzip.compress(hostile.plain({"f": b"x"}))[:-20], "gzip stream"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 100, "gzip stream is damaged"),
        (b"BZh9" + bytes(600), "checksum"),
        (hostile.header(b"f")[:-1] + b"x", "checksum"),
        (hostile.pax(b"11 path=a\n") + hostile.header(b"f"), "malformed pax"),
        (hostile.pax(b"8 gid=\n\0\0\0") + hostile.pax(b"99 a=b\n") + hostile.header(b"f"), "malformed pax"),
        (hostile.pax(b"5 a=b") + hostile.header(b"f"), "malformed pax"),
        (hostile.pax(b"0 a=b\n") + hostile.header(b"f"), "malformed pax"),
        (hostile.pax(hostile.record(b"path", b"p" * 5000)) + hostile.header(b"f"), "4095 bytes"),
        (hostile.pax(hostile.record(b"path", b"a\0b")) + hostile.header(b"f"), "NUL"),
        (hostile.pax(hostile.record(b"linkpath", b"..\0x")) + hostile.header(b"f", b"2"), "NUL"),
        (hostile.header(b"."), "no name"),
        (hostile.header(b""), "no name"),
        (hostile.header(b"v", b"V"), "neither file"),
        (b"", "no end"),
        (gzip.compress(b""), "no end"),
        (hostile.header(b"f"), "no end"),
        (hostile.header(b"f") + bytes(100), "ends too early"),
        (
            hostile.header(b"f") + hostile.pax(hostile.record(b"path", b"a")) + hostile.END,
            "belongs to a member",
        ),
        (hostile.plain({"a": b"1"}) + hostile.plain({"b": b"2"}), "several archives"),
        (gzip.compress(hostile.plain({"a": b"1"})) + gzip.compress(hostile.plain({"b": b"2"})), "several"),
        (gzip.compress(hostile.plain({"f": b"x"})) + b"more", "follows the gzip stream"),
        (hostile.pax(hostile.record(b"pats", b"a")) + hostile.header(b"f") + hostile.END, "'pats'"),
        (
            hostile.pax(hostile.record(b"size", b"2")) + hostile.header(b"f", size=3) + bytes(2048),
            "differ in",
        ),
        (hostile.header(b"l", b"L", 3) + hostile.padded(b"a\0b") + hostile.header(b"f"), "long name"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=why):
        sanitize(io.BytesIO(data), tmp_path / "out.tar", bytes_max=MIB)


def test_names_in_messages_are_short_and_plain(tmp_path: Path) -> None:
    name = b"\x1b[2J" + b"x" * 4000
    data = hostile.pax(hostile.record(b"path", name)) + hostile.header(b"f", b"6") + hostile.END
    with pytest.raises(ArchiveRefused) as refused:
        sanitize(io.BytesIO(data), tmp_path / "out.tar", bytes_max=MIB)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "empty",
    [bytes(512), hostile.END, bytes(10240), gzip.compress(bytes(10240), mtime=0)],
    ids=["a block", "an end", "a record", "gzip"],
)
def test_an_archive_of_nothing(empty: bytes, tmp_path: Path) -> None:
    assert seen(empty, tmp_path) == {}


TYPES = st.sampled_from([bytes([kind]) for kind in b"01234567LKxXgSDV\0"])
SIZES = st.integers(0, 2000) | st.sampled_from([b"\x80" + b"\0" * 11, b"\xff" * 12, b"8", b"7" * 12, b" 1"])
NAMES = st.binary(max_size=100) | st.sampled_from([b"a", b"a/b", b"../a", b"/a", b"././@LongLink"])
RECORDS = st.lists(
    st.tuples(st.sampled_from([b"path", b"size", b"linkpath", b"mtime", b"x"]), st.binary(max_size=20))
).map(lambda pairs: b"".join(hostile.record(key, value) for key, value in pairs))
PIECES = (
    st.builds(hostile.header, NAMES, TYPES, SIZES, target=NAMES)
    | RECORDS.map(hostile.pax)
    | st.binary(max_size=700)
    | st.binary(max_size=100).map(hostile.padded)
)


def read_all(data: bytes) -> None:
    """As `sanitize` reads; what is not refused has members within the bounds."""
    tar = Tar(open_stream(io.BytesIO(data)), MIB)
    try:
        for member in tar:
            assert 0 <= member.size <= MIB
            assert member.mtime >= 0
            while tar.read(1000):
                pass
    except ArchiveRefused:
        pass


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=8).map(b"".join), st.booleans())
def test_any_headers_are_read_or_refused(data: bytes, packed: bool) -> None:
    read_all(gzip.compress(data, 1) if packed else data)


HONEST = [
    hostile.plain({"a/b": b"x" * 700, "n" * 150: b"y"}),
    hostile.plain({"a/b": b"x" * 700, "ü" * 150: b"y"}, tarfile.PAX_FORMAT),
    gzip.compress(hostile.plain({"a": b"x" * 5000})),
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(HONEST),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_honest_archives_with_wrong_bytes(data: bytes, changes: list[tuple[float, int]], cut: float) -> None:
    changed = bytearray(data)
    for place, value in changes:
        changed[int(place * len(changed))] = value
    read_all(bytes(changed[: int(cut * len(changed))]))
    read_all(bytes(changed))


def short(data: bytes) -> bytes:
    """With no more zeros at the end than there must be."""
    data = data.rstrip(b"\0")
    return hostile.padded(data) + hostile.END


# Names, targets and sizes in headers of every kind.
WHOLE: dict[str, bytes] = {
    "ustar": short(hostile.plain({"a/b": b"x" * 700, "c": b"", "d": b"y" * 512}, tarfile.USTAR_FORMAT)),
    "gnu": short(hostile.plain({"a": b"x" * 700, "n" * 150: b"y", "z": b"1"})),
    "pax": short(hostile.plain({"a": b"x" * 700, "ü" * 150: b"y", "z": b"1"}, tarfile.PAX_FORMAT)),
    "pax with sizes": hostile.pax(hostile.record(b"size", b"700") + hostile.record(b"mtime", b"1.5"))
    + hostile.header(b"a", size=700)
    + hostile.padded(b"x" * 700)
    + hostile.header(b"l", b"2", target=b"a")
    + hostile.END,
}


def shape(data: bytes) -> list[tuple[str, int]] | None:
    """The kinds and sizes of all members; None of what is refused."""
    try:
        return [(member.kind, member.size) for member in Tar(open_stream(io.BytesIO(data)), MIB)]
    except ArchiveRefused:
        return None


def contents(data: bytes) -> list[tuple[str, str, bytes]] | None:
    """The names, targets and contents of all members; None of what is refused."""
    tar = Tar(open_stream(io.BytesIO(data)), MIB)
    found = []
    try:
        for member in tar:
            content = b""
            while piece := tar.read(1000):
                content += piece
            found.append((member.name, member.target, content))
    except ArchiveRefused:
        return None
    return found


@pytest.mark.parametrize("format", list(WHOLE))
def test_cut_anywhere_it_is_whole_or_refused(format: str) -> None:
    whole = WHOLE[format]
    expected = contents(whole)
    assert expected
    # Only zeros may be missing.
    bare = len(whole.rstrip(b"\0"))
    for cut in range(len(whole)):
        found = contents(whole[:cut])
        assert found is None or (found == expected and cut > bare)
    packed = gzip.compress(whole)
    assert [cut for cut in range(len(packed)) if contents(packed[:cut]) is not None] == []


@pytest.mark.parametrize("format", list(WHOLE))
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_with_any_byte_flipped_no_member_is_lost(format: str, flip: int) -> None:
    """A plain archive has checksums of its headers alone: a name or a content may be another."""
    whole = WHOLE[format]
    expected = shape(whole)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= flip
        assert shape(bytes(changed)) in (None, expected), place


@pytest.mark.parametrize("format", list(WHOLE))
def test_compressed_any_flipped_bit_is_told(format: str) -> None:
    expected = contents(WHOLE[format])
    packed = gzip.compress(WHOLE[format])
    for place in range(len(packed)):
        for bit in range(8):
            changed = bytearray(packed)
            changed[place] ^= 1 << bit
            # gzip's own time and flags, and the bits that fill a byte, change nothing of what is inside.
            assert contents(bytes(changed)) in (None, expected), (place, bit)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(WHOLE)),
    st.lists(st.floats(0, 1), max_size=6),
    st.integers(0, 9),
    st.integers(0, 600),
)
def test_compressed_in_pieces_it_is_whole(format: str, places: list[float], level: int, zeros: int) -> None:
    whole = WHOLE[format]
    cuts = [0, *sorted(int(place * len(whole)) for place in places), len(whole)]
    pieces = [gzip.compress(whole[start:end], level) for start, end in pairwise(cuts)]
    assert contents(b"".join(pieces) + bytes(zeros)) == contents(whole)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=8).map(b"".join))
def test_what_is_clean_is_read_by_others(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No name leads out of the workspace for a reader of another make."""
    into = tmp_path_factory.mktemp("fuzz") / "out.tar"
    try:
        sanitize(io.BytesIO(data), into, bytes_max=MIB)
    except ArchiveRefused:
        return
    with tarfile.open(into, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            assert not member.name.startswith("/")
            assert ".." not in member.name.split("/")
            assert member.isreg() or member.isdir() or member.issym() or member.islnk()

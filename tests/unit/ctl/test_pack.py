"""What `run --dir` sends: the folder as it is, less what is left out by name."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chorus.archives.clean import sanitize
from chorus.ctl import ignored, source
from chorus.ctl.cli import build_parser
from chorus.ctl.left_out import LeftOut, in_short
from chorus.ctl.pack import CHANGED, LINK_OUT, pack
from chorus.ctl.problems import CtlError
from chorus.ctl.tree import IGNORED, REPOSITORY, walk

MIB = 1024 * 1024
Shape = tuple[Any, ...]


@pytest.fixture(autouse=True)
def no_settings_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["git answers", "git is silent"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything about ignored files holds with git and without."""
    if request.param == "git is silent":
        silence(monkeypatch)
    return str(request.param)


def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ignored.GitSilent

    monkeypatch.setattr(ignored._Git, "__init__", refuse)


def git(folder: Path, *words: str) -> bytes:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "protocol.file.allow=always")
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, check=True).stdout


def write(root: Path, *paths: str, content: bytes = b"x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def sent(folder: Path) -> tuple[bytes, dict[str, str]]:
    """The archive of a folder, and what is left out of it with the reason."""
    tree = walk(folder)
    out = io.BytesIO()
    others = pack(tree.root, [*tree.folders, *tree.files], out)
    return out.getvalue(), {each.file: each.why for each in (*tree.left_out, *others)}


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        return tar.getnames()


def files(folder: Path) -> set[str]:
    """The files that are sent, without folders."""
    with tarfile.open(fileobj=io.BytesIO(sent(folder)[0]), errors="surrogateescape") as tar:
        return {member.name for member in tar if not member.isdir()}


def unpacked(archive: bytes, into: Path) -> None:
    """As an agent checks it and a sandbox unpacks it."""
    clean = into.with_suffix(".tar")
    sanitize(io.BytesIO(archive), clean, bytes_max=64 * MIB)
    into.mkdir()
    subprocess.run(["tar", "-x", "-p", "-f", str(clean), "-C", str(into), "--no-same-owner"], check=True)


def shape(root: Path, left_out: dict[str, str]) -> dict[str, Shape]:
    """Everything below a folder by its path, but for what is left out."""
    found: dict[str, Shape] = {}

    def look(folder: str) -> None:
        for entry in os.scandir(root / folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if path in left_out or (f"{path}/" in left_out and entry.is_dir(follow_symlinks=False)):
                continue
            if stat.S_ISDIR(mode):
                found[path] = ("folder", stat.S_IMODE(mode) & 0o777 | 0o500)
                look(path)
            elif stat.S_ISLNK(mode):
                found[path] = ("link", os.readlink(entry.path))  # noqa: PTH115
            elif stat.S_ISREG(mode):
                content = Path(entry.path).read_bytes()
                found[path] = ("file", stat.S_IMODE(mode) & 0o777 | 0o400, content)
            else:
                found[path] = ("special",)

    look("")
    return found


NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"\n"))
    .filter(lambda name: name not in (b".", b"..", b".git", b".hg", b".svn"))
)
TARGETS = st.one_of(
    NAMES,
    NAMES.map(lambda name: b"/" + name),
    st.lists(st.sampled_from([b"..", b".", b"a", b"b", b""]), min_size=1, max_size=6)
    .map(b"/".join)
    .filter(bool),
    st.binary(min_size=1, max_size=300).map(lambda name: name.replace(b"\0", b"/")),
)
KINDS = st.one_of(
    st.tuples(st.just("file"), st.integers(0, 0o777), st.sampled_from([0, 1, 511, 512, 513, 70_000])),
    st.tuples(st.just("folder"), st.integers(0, 0o777)),
    st.tuples(st.just("link"), TARGETS),
    st.tuples(st.sampled_from(["fifo", "socket", "repository"])),
)
TREES = st.lists(
    st.tuples(st.lists(st.sampled_from([b"a", b"b", b"c" * 120]) | NAMES, min_size=1, max_size=4), KINDS),
    max_size=14,
)


def made(root: Path, tree: list[tuple[list[bytes], Shape]]) -> None:
    """Makes what can be made of a generated tree."""
    modes = []
    for parts, (kind, *more) in tree:
        path = root / os.fsdecode(b"/".join(parts))
        with contextlib.suppress(FileExistsError, NotADirectoryError, FileNotFoundError, IsADirectoryError):
            # Nothing through a link: it may lead anywhere.
            if any((root / os.fsdecode(b"/".join(parts[:n]))).is_symlink() for n in range(1, len(parts))):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                with path.open("xb") as file:
                    file.write(os.urandom(more[1]))
                modes.append((path, more[0]))
            elif kind == "folder":
                path.mkdir()
                modes.append((path, more[0]))
            elif kind == "link":
                path.symlink_to(os.fsdecode(more[0]))
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "socket":
                os.mknod(path, stat.S_IFSOCK | 0o600)
            else:
                (path / ".git").mkdir(parents=True)
                write(path, ".git/HEAD", ".git/config", "in the repository")
    for path, mode in modes:
        # What its owner may not read is left out for a user, and read by root.
        path.chmod(mode | 0o500 if path.is_dir() else mode | 0o400)


@settings(max_examples=30, deadline=None)
@given(TREES)
def test_a_folder_arrives_equal_or_what_is_left_out_is_named(tree: list[tuple[list[bytes], Shape]]) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        root = Path(place, "in")
        root.mkdir()
        made(root, tree)
        archive, left_out = sent(root)
        unpacked(archive, Path(place, "out"))
        assert shape(Path(place, "out"), {}) == shape(root, left_out)
        assert set(left_out.values()) <= {"a socket", "a FIFO", LINK_OUT, REPOSITORY}
        assert sent(root)[0] == archive


PATTERNS = st.one_of(
    st.sampled_from(
        [
            b"a",
            b"a/",
            b"/a",
            b"*.o",
            b"!*.o",
            b"!a/",
            b"*",
            b"!*/",
            b"b/**",
            b"**/a",
            b"a/**/b",
            b"b/*",
            b"!b/a",
        ]
    ),
    st.lists(st.sampled_from([*b"ab*?![]/\\ #\r-.\xc3\xa9\n"]), min_size=1, max_size=7).map(bytes),
)
PARTS = st.sampled_from([b"a", b"b", b"x.o", b"\xc3\xa9", b"a b ", b"#a", b"!a", b"[a]", b"a\nb", b"\\"])
WORK_TREES = st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=14)
IGNORE_FILES = st.lists(
    st.tuples(st.lists(PARTS, max_size=2), st.lists(PATTERNS, min_size=1, max_size=5)), min_size=1, max_size=3
)


@settings(max_examples=20, deadline=None)
@given(WORK_TREES, IGNORE_FILES, st.sets(st.integers(0, 13), max_size=3), PATTERNS, st.integers(0, 1))
@example([[b"\\", b"a"]], [([], [b"\\/"])], set(), b"a/", 0)
@example([[b"\\", b"a"], [b"a", b"a"]], [([], [b"\\/a"])], set(), b"a\\/a", 0)
@example([[b"a"], [b"b", b"a"], [b"b", b"b", b"a"]], [([], [b"**\\/a", b"b/**\\/a"])], set(), b"#", 0)
@example([[b"\\", b"a"], [b"b"]], [([], [b"*", b"!*\\//"])], set(), b"/\\/", 0)
def test_what_is_ignored_is_what_git_ignores(
    tree: list[list[bytes]],
    ignore_files: list[tuple[list[bytes], list[bytes]]],
    tracked: set[int],
    exclude: bytes,
    below: int,
) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as monkeypatch:
        root = Path(place)
        git(root, "init", "-q")
        for n, parts in enumerate(tree):
            path = os.fsdecode(b"/".join(parts))
            with contextlib.suppress(NotADirectoryError, FileExistsError, IsADirectoryError):
                write(root, path)
                if n in tracked:
                    git(root, "add", "-f", "--", path)
        (root / ".git/info/exclude").write_bytes(exclude)
        for parts, patterns in ignore_files:
            with contextlib.suppress(NotADirectoryError, FileExistsError):
                write(root, os.fsdecode(b"/".join([*parts, b".gitignore"])), content=b"\n".join(patterns))
        folder = root / "a" if below and (root / "a").is_dir() else root
        listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        by_git = {os.fsdecode(name) for name in listed.split(b"\0") if name}
        whole = ignored.Ignored(root, folder).whole_folder()
        by_asking = names(sent(folder)[0])
        silence(monkeypatch)
        assert ignored.Ignored(root, folder).whole_folder() == whole
        assert names(sent(folder)[0]) == by_asking
        if not whole:
            assert files(folder) == {name for name in by_git if os.path.lexists(folder / name)}


def test_ignored_files_stay_behind(asked: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "x.c", "x.o", "sub/y.o", "sub/keep.o", "secret", "tracked.o", "build/z", "build/deep/z")
    write(tmp_path, ".gitignore", content=b"\xef\xbb\xbf*.o\r\nbuild/\r\n")
    write(tmp_path, "sub/.gitignore", content=b"!keep.o\n")
    write(tmp_path, ".git/info/exclude", content=b"secret\n")
    git(tmp_path, "add", "-f", "tracked.o")
    assert files(tmp_path) == {"x.c", "tracked.o", ".gitignore", "sub/.gitignore", "sub/keep.o"}
    assert sent(tmp_path)[1] == {
        **dict.fromkeys(["x.o", "secret", "build/", "sub/y.o"], IGNORED),
        ".git/": REPOSITORY,
    }
    # From below the rules above count as well.
    assert files(tmp_path / "sub") == {".gitignore", "keep.o"}
    # Who names an ignored folder means what is in it.
    assert files(tmp_path / "build") == {"z", "deep/z"}


def test_the_users_own_ignore_files_count(asked: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "a.swp", "b.bak")
    home = Path(os.environ["HOME"])
    write(home, ".config/git/ignore", content=b"*.swp\n")
    assert files(tmp_path) == {"b.bak"}
    write(home, "mine", content=b"*.bak\n")
    write(home, ".gitconfig", content=b"[core]\n\texcludesFile = ~/mine\n")
    assert files(tmp_path) == {"a.swp"}


def test_a_repository_of_somebody_else(tmp_path: Path) -> None:
    """Git refuses it, and its ignore files count all the same."""
    git(tmp_path, "init", "-q")
    write(tmp_path, "x", ".env")
    write(tmp_path, ".gitignore", content=b".env\n")
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    for path in (tmp_path, tmp_path / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(subprocess.CalledProcessError):
        git(tmp_path, "status")
    assert files(tmp_path) == {"x", ".gitignore"}


def test_without_git_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "x", ".env", "dist/t")
    write(tmp_path, ".gitignore", content=b".env\ndist\n")
    git(tmp_path, "add", "-f", "dist/t")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert files(tmp_path) == {"x", ".gitignore", "dist/t"}


@pytest.mark.parametrize("damage", ["HEAD", "config", "index", "objects"])
def test_a_damaged_repository(damage: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "x", ".env")
    write(tmp_path, ".gitignore", content=b".env\n")
    git(tmp_path, "add", "x")
    broken = tmp_path / ".git" / damage
    if broken.is_dir():
        broken.rename(tmp_path / ".git" / "gone")
    else:
        broken.write_bytes(b"\xff" * 40)
    assert files(tmp_path) == {"x", ".gitignore"}


def test_variables_of_git_lead_to_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks of git are run with them."""
    for name in ("here", "other"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "-q")
    write(tmp_path, "here/x", "here/.env")
    write(tmp_path, "here/.gitignore", content=b".env\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other/.git/index"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert files(tmp_path / "here") == {"x", ".gitignore"}


def test_outside_of_a_repository_nothing_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, "x", "x.o")
    write(tmp_path, ".gitignore", content=b"*.o\n")
    assert files(tmp_path) == {"x", "x.o", ".gitignore"}
    assert walk(tmp_path).unused_ignore_file


def test_work_trees_inside_are_sent_by_their_own_rules(asked: str, tmp_path: Path) -> None:
    library, main = tmp_path / "library", tmp_path / "main"
    for folder in (library, main, main / "nested", main / "ignored-nested"):
        folder.mkdir(exist_ok=True)
        git(folder, "init", "-q")
        write(folder, "x", "x.o")
    for folder, rule in (
        (library, b"*.tmp\n"),
        (main, b"*.o\nignored-nested\n"),
        (main / "nested", b"*.log\n"),
    ):
        write(folder, ".gitignore", content=rule)
        git(folder, "add", ".gitignore", "x")
        git(folder, "commit", "-q", "-m", "m")
    git(main, "submodule", "--quiet", "add", str(library), "module")
    git(main, "worktree", "add", "-q", str(main / "additional"))
    write(main / "module", "y.tmp", "y.o")
    write(main / "nested", "y.log")
    write(main / "additional", "y.o", "y")
    write(main, "more.o")
    empty = tmp_path / "main/empty"
    empty.mkdir()
    archive, left_out = sent(main)
    assert set(names(archive)) == {
        *(".gitignore", ".gitmodules", "x", "empty"),
        *("nested", "nested/.gitignore", "nested/x", "nested/x.o"),
        *("module", "module/.gitignore", "module/x", "module/y.o"),
        *("additional", "additional/.gitignore", "additional/x", "additional/y"),
    }
    assert {path for path, why in left_out.items() if why == IGNORED} == {
        *("x.o", "more.o", "ignored-nested/", "nested/y.log", "module/y.tmp", "additional/y.o")
    }


def test_empty_folders_are_sent(asked: str, tmp_path: Path) -> None:
    assert names(sent(tmp_path)[0]) == []
    git(tmp_path, "init", "-q")
    (tmp_path / "logs/deep").mkdir(parents=True)
    (tmp_path / "build").mkdir()
    write(tmp_path, ".git/info/exclude", content=b"build\n*.o\n")
    write(tmp_path, "only/x.o")
    assert names(sent(tmp_path)[0]) == ["logs", "logs/deep", "only"]


def test_packing_is_deterministic_and_whole(tmp_path: Path) -> None:
    write(tmp_path, ".git/HEAD", "a", "sub/b", content=bytes(range(256)))
    (tmp_path / "a").chmod(0o755)
    (tmp_path / "sub" / "link").symlink_to("../a")
    first = sent(tmp_path)[0]
    os.utime(tmp_path / "a", (1, 1))
    assert sent(tmp_path)[0] == first
    assert names(first) == ["sub", "a", "sub/b", "sub/link"]


def test_links_are_kept_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "f", "d/g")
    targets = {
        "a": "/usr/bin/python3",
        "b": "a",
        "c": "d/../f",
        "d/up": "..//f",
        "e": "nowhere",
        "self": "self",
    }
    for name, target in targets.items():
        (tmp_path / name).symlink_to(target)
    archive, left_out = sent(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {member.name: member.linkname for member in tar if member.issym()} == targets
    assert left_out == {}


@pytest.mark.parametrize("target", ["../outside", "sub/../../x", "d/.."])
def test_relative_links_out_of_the_folder_are_left_out(target: str, tmp_path: Path) -> None:
    (tmp_path / "d").symlink_to(".")
    (tmp_path / "out").symlink_to(target)
    archive, left_out = sent(tmp_path)
    assert names(archive) == ["d"]
    assert left_out == {"out": LINK_OUT}


def test_special_files_are_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, "x")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
    archive, left_out = sent(tmp_path)
    assert names(archive) == ["x"]
    assert left_out == {"pipe": "a FIFO", "s": "a socket"}


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_cannot_be_read_is_left_out_and_named() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write(root, "file", "closed/x", "names-only/x", "x")
        for name, mode in (("file", 0), ("closed", 0), ("names-only", 0o744)):
            (root / name).chmod(mode)
        root.chmod(0o755)
        with unprivileged():
            archive, left_out = sent(root)
        closed = ["closed/", "file", "names-only/x"]
        assert names(archive) == ["closed", "names-only", "x"]
        assert left_out == dict.fromkeys(closed, "cannot be read: Permission denied")
        (root / "closed").chmod(0o700)


def test_a_path_that_is_too_long_is_left_out_and_named(tmp_path: Path) -> None:
    """Linux makes one below a folder that is open already."""
    name = "d" * 200
    opened = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(name, dir_fd=opened)
        inner = os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    os.close(opened)
    archive, left_out = sent(tmp_path)
    assert len(names(archive)) < 25
    assert set(left_out.values()) == {"cannot be read: File name too long"}


def test_a_file_that_shrinks_or_goes_is_left_out_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a", "b", "gone")
    write(tmp_path, "shrinks", content=b"x" * MIB)
    tree = walk(tmp_path)
    (tmp_path / "gone").unlink()
    real = os.fstat

    def shrink(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if found.st_size == MIB:
            os.truncate(tmp_path / "shrinks", 300_000)
        return found

    monkeypatch.setattr(os, "fstat", shrink)
    out = io.BytesIO()
    left_out = pack(tree.root, [*tree.files, "b"], out)
    assert left_out == [LeftOut("gone", CHANGED), LeftOut("shrinks", CHANGED)]
    assert names(out.getvalue()) == ["a", "b", "b"]


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    write(tmp_path, "x")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("x", "nothing", "circle"):
        with pytest.raises(CtlError, match=name):
            walk(tmp_path / name)


def test_a_present_folder_that_was_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(CtlError, match="No such file"):
        walk(Path())


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    write(tmp_path, "x", content=bytes(MIB))
    arguments = build_parser().parse_args(["run", "--dir", str(tmp_path), "--", "true"])
    with Path("/dev/full").open("w+b", buffering=0) as full, pytest.raises(CtlError, match="TMPDIR"):
        source.pack_folder(arguments, full)


def test_what_is_left_out_is_said_in_one_line() -> None:
    left_out = [LeftOut(f"s{n}", "a socket") for n in range(7)]
    left_out += [LeftOut("x.o", IGNORED), LeftOut("y/", IGNORED), LeftOut("l", LINK_OUT)]
    assert in_short(left_out, frozenset({IGNORED})) == (
        "s0, s1, s2, s3, s4 and 2 more (a socket); l (a link out of the folder); 2 ignored by git"
    )
    assert in_short([], frozenset()) == ""


def told(folder: Path, *options: str) -> None:
    arguments = build_parser().parse_args(["run", *options, "--dir", str(folder), "--", "true"])
    source.pack_folder(arguments, io.BytesIO())


def test_run_says_what_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "x", "x.o", ".env", "\udcff\n")
    write(tmp_path, ".gitignore", content=b"*.o\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    told(tmp_path)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "chorusctl: left out .env: variables of an environment; --include-secrets sends it",
        "chorusctl: left out pipe (a FIFO); 1 ignored by git",
    ]
    told(tmp_path, "--json")
    said = capfd.readouterr()
    assert said.err == ""
    for file in (".env", ".git/", "pipe", "x.o"):
        assert f'"file": "{file}"' in said.out
    assert '"why": "ignored by git"' in said.out

"""What a fresh sandbox is given for the checks: the source as sent, with the change, and nothing else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patch_trees import pairs

from chorus.executor.backend import FileEntry
from chorus.executor.globs import Globs
from chorus.executor.goal.trees import _choose, pack_changed, with_protected
from chorus.executor.patch import File, Tree, apply_patch, make_patch, tree_of_tar
from chorus.executor.patch.making import UNREAD
from chorus.executor.patch.tree import NOT_FETCHED, folders_of

Member = tuple[str, bytes, int, str, bytes]


def member(
    name: str, content: bytes = b"", mode: int = 0o644, type: bytes = tarfile.REGTYPE, target: str = ""
) -> Member:
    return name, type, mode, target, content


def source(folder: Path, *members: Member) -> Path:
    path = folder / "source.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for name, type, mode, target, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size, info.mtime = type, mode, target, len(content), 7
            out.addfile(info, io.BytesIO(content))
    return path


SENT = (
    member("src", type=tarfile.DIRTYPE, mode=0o555),
    member("src/a.py", b"a"),
    member("src/run.sh", b"#!", 0o755),
    member("same", target="src/a.py", type=tarfile.LNKTYPE),
    member("gone", type=tarfile.DIRTYPE),
    member("gone/x", b"x"),
    member("gone/empty", type=tarfile.DIRTYPE),
    member("kept", type=tarfile.DIRTYPE),
    member("link", target="src", type=tarfile.SYMTYPE),
)


async def packed(folder: Path, change: dict[str, File | None]) -> tuple[Tree, list[tarfile.TarInfo]]:
    """What comes of a change to the source: its tree, and all members."""
    sent = source(folder, *SENT)
    before = await tree_of_tar(sent)
    after = {path: file for path, file in {**before, **change}.items() if file is not None}
    pack_changed(sent, before, after, folder / "out.tar")
    with tarfile.open(folder / "out.tar") as archive:
        members = archive.getmembers()
    tree = await tree_of_tar(folder / "out.tar")
    assert tree == after
    return tree, members


CHANGES: dict[str, dict[str, File | None]] = {
    "nothing": {},
    "content": {"src/a.py": File.of("100644", b"changed")},
    "the file that a second name leads to": {"src/a.py": None},
    "a mode": {"src/run.sh": File.of("100644", b"#!")},
    "new files": {"new/deep": File.of("100755", b"n"), "\udcff": File.of("100644", b"odd")},
    "a file in a folder's place": {"gone/x": None, "gone": File.of("100644", b"file")},
    "a link in a folder's place": {"gone/x": None, "gone": File.of("120000", b"/tmp")},
    "a folder in a link's place": {"link": None, "link/in": File.of("100644", b"in")},
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_change_is_in_the_archive_and_the_rest_as_it_was_sent(tmp_path: Path, what: str) -> None:
    _, members = await packed(tmp_path, CHANGES[what])
    names = [one.name for one in members]
    assert len(names) == len(set(names))
    # An empty folder that was sent stays, with its mode and its time.
    kept = next(one for one in members if one.name == "kept")
    assert (kept.isdir(), kept.mtime) == (True, 7)
    assert next(one for one in members if one.name == "src").mode == 0o555


async def test_a_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    _, members = await packed(tmp_path, {"gone/x": None})
    assert "gone" not in [one.name for one in members]


async def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    _, members = await packed(tmp_path, CHANGES["a link in a folder's place"])
    assert [one.name for one in members if one.name.startswith("gone")] == ["gone"]


def test_without_a_source_there_is_the_change_alone(tmp_path: Path) -> None:
    pack_changed(None, {}, {"a": File.of("100644", b"a")}, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["a"]


def test_protected_files_are_those_that_were_sent() -> None:
    sent = {
        "tests/a": File.of("100644", b"a"),
        "tests/b": File.of("100644", b"b"),
        "x": File.of("100644", b"x"),
    }
    after = {
        "tests": File.of("100644", b"in the way"),
        "x": File.of("100644", b"changed"),
        "tests/sitecustomize.py": File.of("100644", b"planted"),
    }
    assert with_protected(sent, after, ("tests/**",)) == {
        "tests/a": sent["tests/a"], "tests/b": sent["tests/b"], "x": after["x"]
    }  # fmt: skip
    assert with_protected(sent, after, ()) == after


@given(pairs(), st.sampled_from(["src", "a/**", "**/x.py", "?", "*"]))
def test_no_protected_file_is_another_ones_folder(pair: tuple[Tree, Tree], glob: str) -> None:
    """A folder of its name, or a file in the place of its folder, goes."""
    tree = with_protected(*pair, (glob,))
    assert all(folder not in tree for path in tree for folder in folders_of(path))
    named = Globs((glob,))
    assert {path: file for path, file in pair[0].items() if named.match(path)}.items() <= tree.items()


def test_what_goes_into_no_patch_is_not_fetched() -> None:
    before = {
        "target/sent": File.of("100644", b""),
        "Cargo.toml": File.of("100644", b""),
        ".gitignore": File.of("100644", b"*.log\n"),
    }
    entries = [
        FileEntry("a", "file", 1),
        FileEntry("x.log", "file", 1 << 40),
        FileEntry("node_modules/big", "file", 1 << 40),
        FileEntry(".venv/bin/python", "link", 0, "/usr/bin/python3"),
        FileEntry(".git/config", "file", 1),
        FileEntry("target/sent", "file", 1),
        FileEntry("pipe", "other", 0),
        FileEntry("closed", "directory", 0, readable=False),
        FileEntry("secret", "file", 1, readable=False),
        FileEntry("l", "link", 0, "a"),
    ]
    tree, wanted, missing = _choose(entries, before)
    assert wanted == ["a", "target/sent"]
    assert tree["l"] == File.of("120000", b"a")
    assert {"x.log", "node_modules/big", ".venv/bin/python", ".git/config"} <= tree.keys()
    assert dict(missing) == {
        "pipe": "neither file, folder nor link",
        "closed": "a folder that cannot be read",
        "secret": "it cannot be read",
    }


def test_new_files_in_a_build_folder_that_was_sent_are_fetched() -> None:
    before = {"package.json": File.of("100644", b"{}"), "build/gen.sh": File.of("100644", b"")}
    entries = [FileEntry(path, "file", 1) for path in (*before, "build/new.sh", "dist/made.js")]
    tree, wanted, missing = _choose(entries, before)
    assert (wanted, missing) == (["package.json", "build/gen.sh", "build/new.sh"], [])
    new = File.of("100644", b"content")
    patch = make_patch(before, {**tree, **before, "build/new.sh": new})
    assert apply_patch(before, patch.text) == {**before, "build/new.sh": new}
    assert [one.path for one in patch.left_out] == ["dist"]


@pytest.mark.parametrize(
    "mark", [FileEntry("pkg/pyvenv.cfg", "other", 0), FileEntry("pkg/pyvenv.cfg", "file", 1, readable=False)]
)
def test_what_the_tree_will_not_have_makes_no_folder_a_builds(mark: FileEntry) -> None:
    _, wanted, missing = _choose([mark, FileEntry("pkg/new.py", "file", 1)], {})
    assert wanted == ["pkg/new.py"]
    assert [path for path, _ in missing] == ["pkg/pyvenv.cfg"]


def test_a_file_that_was_not_fetched_is_never_in_a_patch() -> None:
    patch = make_patch({}, {"a": NOT_FETCHED, "b": File.of("100644", b"")})
    assert (patch.files, patch.left_out) == (1, (("a", UNREAD),))

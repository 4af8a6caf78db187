"""A patch is applied to the folder whole or not at all, and only to what was sent."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus.ctl import apply as apply_module
from chorus.ctl import replace as replace_module
from chorus.ctl import trees
from chorus.ctl.apply import PatchRefused, apply_patch
from chorus.ctl.pack import pack
from chorus.ctl.tree import walk

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
State = dict[str, tuple[str, bytes | str]]


def place(root: Path, files: dict[str, str | bytes]) -> Path:
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def sent(root: Path) -> io.BytesIO:
    """The folder as it is packed."""
    tree, out = walk(root), io.BytesIO()
    pack(tree.root, [*tree.folders, *tree.files], out)
    return out


def state(root: Path) -> State:
    """Everything below a folder, folders too."""
    found: State = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[str(path.relative_to(root))] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[str(path.relative_to(root))] = ("folder", b"")
        else:
            found[str(path.relative_to(root))] = (oct(mode & 0o777), path.read_bytes())
    return found


def diff(tmp_path: Path, root: Path, change: Callable[[Path], object]) -> tuple[bytes, State]:
    """The patch that git makes of a change, and what the folder is after it."""
    copy = tmp_path / "made"
    shutil.copytree(root, copy, symlinks=True)
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "GIT_CONFIG_GLOBAL": os.devnull}

    def git(*words: str) -> bytes:
        named = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        return subprocess.run(named, cwd=copy, env=env, capture_output=True, check=True).stdout

    git("init", "-q")
    (copy / ".git" / "info").mkdir(exist_ok=True)
    (copy / ".git" / "info" / "attributes").write_text("* -text\n")
    git("add", "-A", "-f")
    git("commit", "-qm", "x", "--allow-empty")
    change(copy)
    git("add", "-A", "-f")
    patch = git("diff", "--cached", "--binary", "--full-index", "-M")
    shutil.rmtree(copy / ".git")
    return patch, state(copy)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = place(
        tmp_path / "work",
        {
            "a.py": "one\ntwo\nthree\n",
            "run.sh": "#!/bin/sh\n",
            "data.bin": bytes(range(256)),
            "deep/er/old.txt": "old\n",
            "dos.txt": "a\r\nb\r\n",
            "é ü.txt": "umlaut\n",
            "unix.txt": "a\nb\n$Id$\n",
            ".gitattributes": "*.txt text eol=crlf ident\n*.py filter=evil ident\n",
        },
    )
    (made / "a.py").chmod(0o640)
    (made / "link").symlink_to("a.py")
    return made


def much(folder: Path) -> None:
    (folder / "a.py").write_text("one\n2\nthree\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "data.bin").write_bytes(bytes(reversed(range(256))))
    (folder / "deep" / "er" / "old.txt").unlink()
    (folder / "deep" / "er").rmdir()
    (folder / "deep").rmdir()
    (folder / "dos.txt").write_bytes(b"a\r\nB\r\n")
    (folder / "unix.txt").write_bytes(b"a\nB\n$Id$\n")
    (folder / "é ü.txt").rename(folder / "tab\tname.txt")
    (folder / "link").unlink()
    (folder / "link").symlink_to("run.sh")
    place(folder, {"new/file.txt": "new\n", "empty": ""})


def test_what_git_can_say_is_applied(tmp_path: Path, root: Path) -> None:
    archive = sent(root)
    patch, after = diff(tmp_path, root, much)
    changed = apply_patch(patch, archive, root)
    # Who may read a file stays as it was here.
    assert after.pop("a.py")[1] == b"one\n2\nthree\n"
    now = state(root)
    assert now.pop("a.py") == ("0o640", b"one\n2\nthree\n")
    assert now == after
    assert "a.py" in changed
    assert "new/file.txt" in changed
    assert ".gitattributes" not in changed


def test_a_file_becomes_a_folder_and_a_folder_a_file(tmp_path: Path, root: Path) -> None:
    def change(folder: Path) -> None:
        (folder / "a.py").unlink()
        place(folder, {"a.py/inside": "x\n"})
        shutil.rmtree(folder / "deep")
        place(folder, {"deep": "file\n"})

    archive = sent(root)
    patch, after = diff(tmp_path, root, change)
    apply_patch(patch, archive, root)
    assert state(root) == after


def test_it_is_applied_in_a_repository_without_its_hooks_and_settings(tmp_path: Path, root: Path) -> None:
    archive = sent(root)
    patch, _ = diff(tmp_path, root, lambda folder: place(folder, {"a.py": "new\n"}))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    with (root / ".git" / "config").open("a") as config:
        config.write('[filter "evil"]\n\tsmudge = touch smudged; cat\n\tclean = cat\n\trequired = true\n')
    apply_patch(patch, archive, root)
    assert (root / "a.py").read_text() == "new\n"
    assert not (root / "smudged").exists()
    assert not (root / ".git" / "index").exists()


@pytest.mark.parametrize("name", ["a.py", "data.bin", "link", "run.sh"])
@pytest.mark.parametrize("how", ["content", "removed", "folder"])
def test_what_changed_since_is_a_refusal(tmp_path: Path, root: Path, name: str, how: str) -> None:
    archive = sent(root)
    # Also of a file that the patch does not touch: the checks passed with the other one.
    patch, _ = diff(tmp_path, root, lambda folder: place(folder, {"a.py": "new\n"}))
    (root / name).unlink()
    if how == "content":
        (root / name).write_text("by hand\n")
    elif how == "folder":
        (root / name).mkdir()
    before = state(root)
    with pytest.raises(PatchRefused, match=f"{name} changed since the folder was sent"):
        apply_patch(patch, archive, root)
    assert state(root) == before


def test_a_mode_that_changed_since_is_a_refusal(tmp_path: Path, root: Path) -> None:
    archive = sent(root)
    patch, _ = diff(tmp_path, root, lambda folder: place(folder, {"a.py": "new\n"}))
    (root / "run.sh").chmod(0o755)
    with pytest.raises(PatchRefused, match=r"run\.sh changed"):
        apply_patch(patch, archive, root)


@pytest.mark.parametrize(
    ("patch_makes", "there"),
    [("new.txt", "new.txt"), ("made/new.txt", "made"), ("node_modules/x", "node_modules")],
)
def test_what_was_not_sent_is_not_written_over(
    tmp_path: Path, root: Path, patch_makes: str, there: str
) -> None:
    archive = sent(root)
    patch, _ = diff(tmp_path, root, lambda folder: place(folder, {patch_makes: "new\n"}))
    if there == "node_modules":
        (tmp_path / "elsewhere").mkdir()
        (root / there).symlink_to(tmp_path / "elsewhere")
    else:
        (root / there).write_text("mine\n")
    before = state(root)
    with pytest.raises(PatchRefused, match=f"{there} would be written"):
        apply_patch(patch, archive, root)
    assert state(root) == before
    assert not (tmp_path / "elsewhere" / "x").exists()


def test_a_new_file_that_is_no_concern_of_the_patch_is_none(tmp_path: Path, root: Path) -> None:
    archive = sent(root)
    patch, _ = diff(tmp_path, root, lambda folder: place(folder, {"a.py": "new\n"}))
    place(root, {"notes.txt": "mine\n", "deep/er/notes.txt": "mine\n"})
    assert apply_patch(patch, archive, root) == ["a.py"]
    assert (root / "notes.txt").read_text() == "mine\n"


def test_a_folder_that_is_not_empty_stays(tmp_path: Path, root: Path) -> None:
    archive = sent(root)
    patch, _ = diff(tmp_path, root, lambda folder: shutil.rmtree(folder / "deep"))
    place(root, {"deep/er/notes.txt": "mine\n"})
    apply_patch(patch, archive, root)
    assert state(root / "deep") == {"er": ("folder", b""), "er/notes.txt": ("0o644", b"mine\n")}


def test_a_patch_of_which_a_part_fits_is_not_applied(tmp_path: Path, root: Path) -> None:
    archive = sent(root)
    patch, _ = diff(tmp_path, root, lambda folder: place(folder, {"a.py": "one\n2\nthree\n", "b": "x\n"}))
    wrong = patch + patch.replace(b"a.py", b"run.sh").replace(b"b/b", b"b/c").replace(b"a/b", b"a/c")
    before = state(root)
    with pytest.raises(PatchRefused, match="does not fit what was sent"):
        apply_patch(wrong, archive, root)
    assert state(root) == before


def new_file(path: str, content: str = "x", mode: str = "100644") -> bytes:
    lines = "".join(f"+{line}\n" for line in content.splitlines())
    end = "" if content.endswith("\n") else "\\ No newline at end of file\n"
    count = len(content.splitlines())
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1,{count} @@\n{lines}{end}"
    ).encode()


HOSTILE = {
    "up": new_file("../out"),
    "absolute": new_file("/tmp/chorusctl-out"),
    "hook": new_file(".git/hooks/post-checkout", mode="100755"),
    "hook in other letters": new_file(".GIT/hooks/x"),
    "hook below": new_file("sub/.git/config"),
    "link out": new_file("out", "../../etc", "120000"),
    "absolute link": new_file("out", "/etc/passwd", "120000"),
    "beyond a link": new_file("out", "deep", "120000") + new_file("out/x"),
    "beyond a link out": new_file("out", "..", "120000") + new_file("out/x"),
    "through links": new_file("in", "deep/er", "120000") + new_file("out", "in/../../..", "120000"),
    "nothing": b"",
    "no patch": b"\x1b]0;owned\x07\xff" * 100,
    "cut": new_file("b.txt", "x\ny\n")[:-3],
    "rename out": b"diff --git a/a.py b/a.py\nsimilarity index 100%\nrename from a.py\nrename to ../a.py\n",
    "swelling": (
        b"diff --git a/big b/big\nnew file mode 100644\nindex " + b"0" * 40 + b".." + b"1" * 40
        + b"\nGIT binary patch\nliteral 99999999999\nzcmZ?wbhEHb\n\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_patch_changes_nothing(tmp_path: Path, root: Path, name: str) -> None:
    (root / ".git").mkdir()
    archive, before, around = sent(root), state(root), sorted(tmp_path.iterdir())
    with pytest.raises(PatchRefused) as refused:
        apply_patch(HOSTILE[name], archive, root)
    assert "nothing was changed" in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert state(root) == before
    assert sorted(tmp_path.iterdir()) == around
    assert not Path("/tmp/chorusctl-out").exists()


@pytest.mark.parametrize("path", [".git/config", "sub/.git/hooks/x", "sub/.GIT/config", ".git"])
def test_a_repository_is_out_of_reach_whatever_git_says(path: str) -> None:
    with pytest.raises(PatchRefused, match="reaches into a repository"):
        apply_module._check_names(["a.py", path])
    apply_module._check_names([".gitignore", "sub/x.git"])


def test_what_cannot_be_written_leaves_the_folder_as_it_was(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = sent(root)
    patch, after = diff(tmp_path, root, much)
    before = state(root)
    real, moves = replace_module._move, 0
    # Whichever of the moves fails.
    for failing in range(100):
        moves = 0

        def move(from_: Path, to: Path, undo: list[Callable[[], object]], failing: int = failing) -> None:
            nonlocal moves
            if moves == failing:
                raise OSError(28, "No space left on device")
            moves += 1
            real(from_, to, undo)

        monkeypatch.setattr(replace_module, "_move", move)
        try:
            apply_patch(patch, archive, root)
        except PatchRefused as refused:
            assert "No space left on device" in str(refused)  # noqa: PT017
            assert state(root) == before
        else:
            break
    # Eight files were moved aside and nine to their place.
    assert failing == 17
    assert state(root).keys() == after.keys()


def test_without_git_it_says_what_to_do(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = sent(root)
    monkeypatch.setattr(apply_module.shutil, "which", lambda name: None)
    with pytest.raises(PatchRefused, match="git is not installed"):
        apply_patch(new_file("x"), archive, root)


def test_an_archive_is_read_as_it_was_packed(root: Path) -> None:
    place(root, {os.fsdecode(b"\xff\xfe"): "odd\n", "line\nend": "x"})
    assert trees.packed(sent(root)) == trees.below(root)

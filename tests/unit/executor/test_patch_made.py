"""A patch turns the source into the workspace: by our own reading, and by git's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from patch_trees import contents, pairs, picked_up, put_down, text

from chorus.executor.patch import File, Tree, apply_patch, make_patch
from chorus.executor.patch.lines import Budget, changes
from chorus.executor.patch.making import LOOPED
from chorus.executor.patch.tree import LINK, loops
from chorus.executor.patch.writing import lines_of

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git_applied(before: Tree, patch: bytes, *words: str) -> Tree:
    """What git makes of a tree and a patch."""
    with tempfile.TemporaryDirectory() as folder:
        put_down(before, Path(folder))
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", *words, "-"],
            cwd=folder,
            env={**_ENVIRONMENT, "GIT_CEILING_DIRECTORIES": folder},
            input=patch,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace") + patch.decode(errors="replace")
        return picked_up(Path(folder))


@given(pairs())
@settings(UNHURRIED, max_examples=150)
def test_it_makes_the_workspace_of_the_source(pair: tuple[Tree, Tree]) -> None:
    before, after = pair
    patch = make_patch(before, after)
    if patch.left_out:
        assert {one.reason for one in patch.left_out} == {LOOPED}
        return
    assert patch.complete
    assert apply_patch(before, patch.text) == after
    assert bool(patch.files) == (before != after)


def looped(tree: Tree) -> bool:
    """Whether a link in it leads back to itself."""
    return any(file.mode == LINK and loops(path, tree) for path, file in tree.items())


@given(pairs())
@settings(UNHURRIED, max_examples=30)
def test_git_applies_it(pair: tuple[Tree, Tree]) -> None:
    before, after = pair
    patch = make_patch(before, after)
    if not looped(before):
        assert patch.complete
    if patch.text and patch.complete:
        assert git_applied(before, patch.text) == after
    # Backwards git is refused by the system below a link that leads back to itself.
    if (
        patch.text
        and patch.complete
        and not any(f.mode == LINK and loops(p, after) for p, f in after.items())
    ):
        assert git_applied(after, patch.text, "-R") == before


def test_no_folder_comes_in_the_place_of_a_link_that_leads_back_to_itself() -> None:
    a, keep = File.of("100644", b"a"), File.of("100644", b"keep")
    for links in (
        {"src": b"src/x.py"},
        {"src": b"one/x", "one": b"two", "two": b"one"},
        {"src": b"src"},
        {"src": b"../d/src/..", "d/src": b"../src"},
    ):
        before = {path: File.of(LINK, target) for path, target in links.items()} | {"kept": keep}
        after = {**before, "src/a": a, "kept": a}
        del after["src"]
        patch = make_patch(before, after)
        assert not patch.complete
        assert {one.path for one in patch.left_out} == {"src", "src/a"}
        assert git_applied(before, patch.text) == {**before, "kept": a}
    assert make_patch({"src": File.of(LINK, b"nowhere")}, {"src/a": a}).complete
    # To remove such a link, or to put a file in its place, is nothing to git.
    loop = {"src": File.of(LINK, b"src")}
    assert git_applied(loop, make_patch(loop, {"src": a}).text) == {"src": a}


@given(contents, contents)
@settings(UNHURRIED, max_examples=150)
def test_changes_make_one_file_of_another(old: bytes, new: bytes) -> None:
    for steps in (1_000_000, 20, 0):
        a, b = lines_of(old), lines_of(new)
        here, made = 0, []
        for change in changes(a, b, Budget(steps)):
            assert a[here : change.old_start] or here == change.old_start == 0
            made += a[here : change.old_start] + b[change.new_start : change.new_end]
            assert len(made) == change.new_end
            here = change.old_end
        assert made + a[here:] == b


def test_an_edit_is_shown_as_it_is() -> None:
    before = {"greet.py": text("import sys\n\ndef greet(name):\n    print('Helo', name)\n\ngreet('x')\n")}
    after = {"greet.py": text("import sys\n\ndef greet(name):\n    print('Hello', name)\n\ngreet('x')\n")}
    assert make_patch(before, after).text.decode() == (
        "diff --git a/greet.py b/greet.py\n"
        f"index {before['greet.py'].blob_id()}..{after['greet.py'].blob_id()} 100644\n"
        "--- a/greet.py\n"
        "+++ b/greet.py\n"
        "@@ -1,6 +1,6 @@\n"
        " import sys\n"
        " \n"
        " def greet(name):\n"
        "-    print('Helo', name)\n"
        "+    print('Hello', name)\n"
        " \n"
        " greet('x')\n"
    )


def test_an_edit_in_a_long_file_shows_only_what_is_around_it() -> None:
    lines = [f"line {number}\n" for number in range(100_000)]
    before = {"long": text("".join(lines))}
    lines[500] = "another\n"
    lines[70_000:70_000] = ["new\n"]
    patch = make_patch(before, {"long": text("".join(lines))}).text.decode()
    assert patch.count("@@ -") == 2
    assert "@@ -498,7 +498,7 @@" in patch
    assert len(patch.splitlines()) < 30


def test_a_moved_file_is_a_rename() -> None:
    before = {"src/a.py": text("x = 1\n"), "b.py": text("x = 1\n"), "empty": text("")}
    after = {"lib/b.py": text("x = 1\n", "100755"), "src/a.py": text("x = 1\n"), "void": text("")}
    patch = make_patch(before, after).text.decode()
    assert (
        "old mode 100644\nnew mode 100755\nsimilarity index 100%\nrename from b.py\nrename to lib/b.py\n"
        in patch
    )
    # Empty files are all alike.
    assert "rename from empty" not in patch


def test_names_are_quoted_as_git_does() -> None:
    name = 'ä "x"\\\t\x01'
    patch = make_patch({}, {name: text("x\n")}).text.decode()
    said = r"\303\244 \"x\"\\\t\001"
    assert patch.startswith(f'diff --git "a/{said}" "b/{said}"\n')
    assert f'\n--- /dev/null\n+++ "b/{said}"\t\n' in patch


def test_bytes_are_a_binary_patch_that_git_can_take_back() -> None:
    before = {"logo.png": text(bytes(range(256)) * 40)}
    after = {"logo.png": text(bytes(range(255, -1, -1)) * 50)}
    patch = make_patch(before, after).text
    assert b"GIT binary patch\nliteral 12800\n" in patch
    assert git_applied(before, patch) == after
    assert git_applied(after, patch, "-R") == before


def test_a_file_takes_the_place_of_a_folder_and_back() -> None:
    one = {"a": text("a file\n"), "b/c/d": text("deep\n"), "b/e": text("near\n")}
    other = {"a/x": text("a file\n"), "a/y/z": text("deep\n"), "b": text("near\n")}
    for before, after in ((one, other), (other, one)):
        patch = make_patch(before, after).text
        assert apply_patch(before, patch) == after
        assert git_applied(before, patch) == after


@pytest.mark.parametrize("shape", ["all different", "few lines", "nested"])
def test_a_costly_pair_of_files_is_compared_in_bounded_steps(shape: str) -> None:
    """Each pair would take a diff without bounds from minutes to hours."""
    size = 30_000
    match shape:
        case "all different":
            old, new = ([f"{side} {number}\n" for number in range(size)] for side in "ab")
        case "few lines":
            old = [f"{number * number % 7}\n" for number in range(size)]
            new = [f"{number * number % 11 % 7}\n" for number in range(size)]
        case _:
            old = [f"{number}\n" for number in range(size)]
            new = old[::-1]
    before, after = {"x": text("".join(old))}, {"x": text("".join(new))}
    budget = Budget(30_000)
    changes(lines_of(before["x"].read()), lines_of(after["x"].read()), budget)
    # What is begun is finished: at most one more look at the whole.
    assert budget.steps > -3 * size
    assert apply_patch(before, make_patch(before, after).text) == after


def test_contents_are_read_from_the_disk_when_they_are_needed(tmp_path: Path) -> None:
    from chorus.executor.patch.tree import Place

    (tmp_path / "tar").write_bytes(b"....content")
    whole = text("content")
    file = File("100644", whole.sha256, 7, Place(tmp_path / "tar", 4))
    assert file == whole
    assert b"".join(file.pieces()) == b"content"
    (tmp_path / "tar").write_bytes(b"....con")
    with pytest.raises(OSError, match="shorter"):
        file.read()


def test_a_patch_names_the_paths_that_it_changes() -> None:
    before = {"moved": text("a\n"), "gone": text("b\n"), "same": text("c\n"), "edited": text("d\n")}
    after = {"there": text("a\n"), "same": text("c\n"), "edited": text("e\n"), "target/x": text("")}
    patch = make_patch({**before, "pom.xml": text("")}, {**after, "pom.xml": text("")})
    assert patch.paths == ("edited", "gone", "moved", "there")

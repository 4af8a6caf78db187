"""Hostile and mistaken patches are refused, with the file and the line, and cost little."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patch_trees import pairs, text, trees

from chorus.executor.patch import File, PatchRefused, Tree, apply_patch, applying, make_patch
from chorus.executor.patch.names import quoted
from chorus.executor.patch.tree import LINK

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
BEFORE = {"a.txt": text("one\ntwo\nthree\n"), "b.bin": text(b"\0one"), "folder/x": text("x\n")}
AFTER = {**BEFORE, "a.txt": text("one\n2\nthree\n"), "b.bin": text(b"\0two")}
PATCH = make_patch(BEFORE, AFTER).text


def new_file(path: str, content: bytes = b"x\n", mode: str = "100644") -> bytes:
    """A patch that makes one file of one line."""
    name, other = quoted(b"a/" + path.encode()), quoted(b"b/" + path.encode())
    ends = b"" if content.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    return (
        b"diff --git %s %s\nnew file mode %s\nindex %s..%s\n--- /dev/null\n+++ %s\n@@ -0,0 +1 @@\n+%s%s"
        % (name, other, mode.encode(), b"0" * 40, text(content).blob_id().encode(), other, content, ends)
    )


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", "a//b", "./a", "", "a/."])
def test_a_path_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(PatchRefused, match=r"absolute path|leaves the tree"):
        apply_patch(BEFORE, new_file(path))


@pytest.mark.parametrize("path", [".git/hooks/pre-commit", "sub/.GIT/config", "git~1/config", ".git /config"])
def test_gits_own_files_are_refused(path: str) -> None:
    with pytest.raises(PatchRefused, match="git's own files"):
        apply_patch(BEFORE, new_file(path))


@pytest.mark.parametrize("path", ["x" * 256, "/".join(["y" * 200] * 30)])
def test_a_path_that_no_disk_takes_is_refused(path: str) -> None:
    with pytest.raises(PatchRefused, match="bytes"):
        apply_patch(BEFORE, new_file(path))


def test_a_plain_new_file_is_taken() -> None:
    assert apply_patch({}, new_file("new")) == {"new": text("x\n")}


@pytest.mark.parametrize("target", [b"../x", b"a/../../x"])
def test_a_link_out_of_the_tree_is_refused(target: bytes) -> None:
    with pytest.raises(PatchRefused, match="out of the tree"):
        apply_patch(BEFORE, new_file("link", target, LINK))


def test_nothing_is_written_below_a_link_or_a_file() -> None:
    for before in ({"down": File.of(LINK, b"/etc")}, {"down": text("x\n")}):
        with pytest.raises(PatchRefused, match="in the place of a folder"):
            apply_patch(before, new_file("down/passwd"))
    with pytest.raises(PatchRefused, match="in the place of a folder"):
        apply_patch(BEFORE, new_file("folder"))


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        (b" one\n", b" on\n", 6, "another line"),
        (b"-1,3", b"-2,3", 5, "not where"),
        (b"+1,3", b"+1,4", 10, "a line of a hunk begins"),
        (b"+2\n", b"+3\n", 9, "not the one that the patch names"),
        (b"+++ b/a.txt", b"+++ b/c.txt", 4, "new path"),
        (b"--- a/a.txt", b"--- /dev/null", 4, "old path"),
        (b"100644\n---", b"100755\n---", 2, "its mode is 100644"),
        (b"100644\n---", b"100600\n---", 2, "a mode of"),
        (b"a/a.txt b/a.txt", b"a/a.txt b/b.txt", 1, "the paths"),
        (b"a/a.txt b/a.txt", b"a/z.txt b/z.txt", 2, "no such file"),
        (b"literal 4\n", b"literal 5\n", 15, "another size"),
        (b"literal 4\n", b"literal 99999999999\n", 13, "a literal of at most"),
        (b"literal 4\n", b"delta 4\n", 13, "a literal of at most"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(old: bytes, new: bytes, line: int, why: str) -> None:
    wrong = PATCH.replace(old, new, 1)
    assert wrong != PATCH
    with pytest.raises(PatchRefused, match=rf"line {line}: .*{why}"):
        apply_patch(BEFORE, wrong)


def test_another_source_is_refused() -> None:
    with pytest.raises(PatchRefused, match=r"a\.txt, line 2: its content is not the one"):
        apply_patch({**BEFORE, "a.txt": text("one\ntwo\nthree\nfour\n")}, PATCH)
    with pytest.raises(PatchRefused, match="there is such a file already"):
        apply_patch({"new": text("")}, new_file("new"))


def test_every_file_is_changed_once() -> None:
    with pytest.raises(PatchRefused, match="no such file"):
        apply_patch(BEFORE, PATCH + PATCH)
    with pytest.raises(PatchRefused, match="already"):
        apply_patch({}, new_file("new") * 2)


def literal(content: bytes, size: int) -> bytes:
    packed = zlib.compress(content, 9)
    pieces = [packed[place : place + 52] for place in range(0, len(packed), 52)]
    lines = [
        bytes([len(each) + (64 if len(each) <= 26 else 70)]) + base64.b85encode(each, pad=True)
        for each in pieces
    ]
    return b"literal %d\n%s\n\n" % (size, b"\n".join(lines))


def binary(path: bytes, content: bytes, size: int) -> bytes:
    head = b"diff --git a/%s b/%s\nnew file mode 100644\nindex %s..%s\nGIT binary patch\n"
    return head % (path, path, b"0" * 40, text(content).blob_id().encode()) + literal(content, size)


def test_what_inflates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "FILE_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(applying, "CONTENTS_BYTES_MAX", 4 << 20)
    bomb = bytes((1 << 20) + 1)
    with pytest.raises(PatchRefused, match="at most"):
        apply_patch({}, binary(b"bomb", bomb, len(bomb)))
    with pytest.raises(PatchRefused, match="another size"):
        apply_patch({}, binary(b"bomb", bomb, 1000))
    each = bytes(1 << 20)
    with pytest.raises(PatchRefused, match="the contents have more than"):
        apply_patch({}, b"".join(binary(b"bomb%d" % number, each, len(each)) for number in range(5)))


@given(trees, st.binary(max_size=300))
@settings(UNHURRIED, max_examples=100)
def test_any_text_is_applied_or_refused(before: Tree, patch: bytes) -> None:
    _try(before, patch)
    _try(before, b"diff --git " + patch)


@given(pairs(), st.data())
@settings(UNHURRIED, max_examples=150)
def test_a_patch_that_was_changed_is_applied_or_refused(pair: tuple[Tree, Tree], data: st.DataObject) -> None:
    before, after = pair
    patch = make_patch(before, after).text
    place = data.draw(st.integers(0, len(patch)))
    end = data.draw(st.integers(place, min(len(patch), place + 20)))
    _try(before, patch[:place] + data.draw(st.binary(max_size=5)) + patch[end:])


def _try(before: Tree, patch: bytes) -> None:
    try:
        made = apply_patch(before, patch)
    except PatchRefused as refused:
        said = str(refused)
    else:
        said = "line"
        for path in made:
            assert not path.startswith("/")
            assert not {"", ".", "..", ".git"}.intersection(path.split("/"))
    assert "line" in said
    assert said.isprintable()

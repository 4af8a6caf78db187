"""What does not go into a patch: ignored files, build folders, git's own, links out, and what is too much."""

from __future__ import annotations

import pytest
from patch_trees import text

from chorus.executor.patch import File, LeftOut, apply_patch, ignoring, make_patch
from chorus.executor.patch.ignoring import Ignored
from chorus.executor.patch.making import BUILT, IGNORED
from chorus.executor.patch.tree import LINK

SOURCE = {
    ".gitignore": text("*.log\n/out/\n!keep.log\n"),
    "lib/.gitignore": text("generated.py\n"),
    "lib/a.py": text("a\n"),
    "setup.py": text("x\n"),
}


def left_out(before: dict[str, File], made: dict[str, File]) -> list[LeftOut]:
    """What is left out of a patch that makes some files beside the source's."""
    patch = make_patch(before, {**before, **made})
    assert patch.complete
    kept = {path: made[path] for path in made if path in apply_patch(before, patch.text)}
    assert apply_patch(before, patch.text) == {**before, **kept}
    return sorted(patch.left_out)


def test_what_the_source_ignores_is_named() -> None:
    made = {
        path: text("x\n")
        for path in ("b.log", "keep.log", "out/1", "out/2/3", "lib/generated.py", "generated.py", "lib/out/x")
    }
    assert left_out(SOURCE, made) == [
        ("b.log", IGNORED),
        ("lib/generated.py", IGNORED),
        ("out", IGNORED),
    ]


def test_rules_are_those_of_the_source_as_it_was_sent() -> None:
    """A run that changes the rules hides nothing by it."""
    patch = make_patch(SOURCE, {**SOURCE, ".gitignore": text("*\n"), "trick.py": text("x\n")})
    assert patch.left_out == ()
    assert b"b/trick.py" in patch.text


def test_an_ignored_file_that_was_sent_counts_as_tracked() -> None:
    source = {**SOURCE, "old.log": text("x\n")}
    patch = make_patch(source, {**source, "old.log": text("y\n")})
    assert patch.left_out == ()
    assert patch.files == 1
    source = {**source, ".gitignore": text("node_modules\n"), "node_modules/m/a.js": text("x\n")}
    patch = make_patch(
        source, {**source, "node_modules/m/a.js": text("y\n"), "node_modules/.cache": text("")}
    )
    assert patch.left_out == (("node_modules", IGNORED),)
    assert patch.files == 0


def test_build_and_cache_folders_are_named_once() -> None:
    made = {
        path: text("x\n")
        for path in (
            *(
                "__pycache__/a.pyc",
                "lib/__pycache__/b.pyc",
                "lib/__pycache__/c.pyc",
                "app/node_modules/m/i.js",
            ),
            *(
                "build/lib/x",
                "x.egg-info/PKG-INFO",
                "env/pyvenv.cfg",
                "env/bin/python",
                "lib/build/x",
                "target/x",
            ),
        )
    }
    assert left_out(SOURCE, made) == [
        *(("__pycache__", BUILT), ("app/node_modules", BUILT), ("build", BUILT), ("env", BUILT)),
        *(("lib/__pycache__", BUILT), ("x.egg-info", BUILT)),
    ]


def test_a_build_folder_of_the_source_is_the_sources() -> None:
    source = {**SOURCE, "build/make.sh": text("x\n")}
    assert left_out(source, {"build/more.sh": text("x\n")}) == []


def test_gits_own_files_never_go_in() -> None:
    source = {**SOURCE, ".git/config": text("[core]\n")}
    made = {".git/hooks/pre-commit": text("#!/bin/sh\n", "100755"), "sub/.git": text("gitdir: x\n")}
    assert left_out(source, made) == [(".git", "git's own files"), ("sub/.git", "git's own files")]
    patch = make_patch(source, {**SOURCE, ".git/config": text("[core]\nfsmonitor = evil\n")})
    assert (patch.text, patch.files) == (b"", 0)


def test_a_link_out_of_the_workspace_is_named() -> None:
    made = {"lib/up": File.of(LINK, b"../../etc"), "lib/over": File.of(LINK, b"../setup.py")}
    assert left_out(SOURCE, made) == [("lib/up", "a link out of the workspace")]


def test_what_is_left_out_stays_in_its_place() -> None:
    """A new file cannot take the place of a folder from which something stays."""
    source = {".gitignore": text("node_modules/\n"), "node_modules/a": text("x\n")}
    patch = make_patch(source, {".gitignore": source[".gitignore"], "node_modules": text("a file\n")})
    assert patch.files == 0
    assert dict(patch.left_out) == {"node_modules": "something that is left out is in its place"}
    assert apply_patch(source, patch.text) == source


def test_the_largest_are_left_out_first() -> None:
    noise = [bytes((number * number * seed) % 251 for number in range(3000)) + b"\0" for seed in range(1, 5)]
    after = {f"{size}.bin": text(noise[size][: size * 700] + b"\0") for size in (1, 2, 3)}
    whole = make_patch({}, after)
    patch = make_patch({}, after, limit_bytes=len(whole.text) - 1)
    assert not patch.complete
    assert [path for path, _ in patch.left_out] == ["3.bin"]
    assert apply_patch({}, patch.text) == {path: after[path] for path in ("1.bin", "2.bin")}
    nothing = make_patch({}, after, limit_bytes=10)
    assert (nothing.text, nothing.files, nothing.complete) == (b"", 0, False)
    assert {path for path, _ in nothing.left_out} == set(after)


def test_what_belongs_together_is_left_out_together() -> None:
    before = {"a": text("x\n"), "b/c": text("y\n")}
    after = {"a/x": text(bytes(range(256)) * 20), "b": text("z\n")}
    patch = make_patch(before, after, limit_bytes=600)
    assert sorted(path for path, _ in patch.left_out) == ["a", "a/x"]
    assert apply_patch(before, patch.text) == {"a": text("x\n"), "b": text("z\n")}


def test_a_file_that_is_too_large_is_not_even_read() -> None:
    huge = File("100644", "0" * 64, 65 << 20, b"never looked at")
    patch = make_patch({}, {"huge": huge, "small": text("x\n")})
    assert patch.left_out == (("huge", "it is larger than 64 MiB"),)
    assert (patch.files, patch.complete) == (1, False)


def test_names_of_what_was_left_out_are_bounded_and_visible() -> None:
    made = {f"{number}.log": text("") for number in range(1500)}
    patch = make_patch(SOURCE, {**SOURCE, **made, "\x1b[31m\udcff.log": text("")})
    assert len(patch.left_out) == 1001
    assert patch.left_out[-1] == ("", "501 more were left out")
    assert all(path.isprintable() for path, _ in patch.left_out)


def test_rules_that_take_too_long_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    source = {".gitignore": text(f"{'*a' * 50}0\n")}
    made = {f"{'a' * 200}{number}": text("") for number in range(10)}
    assert len(left_out(source, made)) == 1
    monkeypatch.setattr(ignoring, "_STEPS_MAX", 100)
    assert left_out(source, made) == []


@pytest.mark.parametrize("rule", ["(", "[", "[]", "[[:nope:]]", "\\", "{a,b}", "/", "!", "!!", "a\\", "[!"])
def test_any_rule_is_read(rule: str) -> None:
    assert Ignored({".gitignore": text(rule)}).covering("plain/name") is None

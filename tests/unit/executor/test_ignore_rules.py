"""Our reading of ignore rules is git's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patch_trees import text

from chorus.executor.patch.ignoring import Ignored

PATHS = [
    "a",
    "b.log",
    "src/a",
    "src/b.log",
    "src/out/x",
    "out/x/y",
    "a b",
    "{a,b}",
    "x[1]",
    "src/.hid",
    "é.log",
]
_PARTS = [
    "a",
    "b.log",
    "*",
    "?",
    "**",
    "*.log",
    "out",
    "src",
    "[a-c]",
    "[!a]*",
    "x[[]1]",
    "[[:alpha:]]",
    "{a,b}",
]
_PARTS += [
    "\\a",
    "a\\ b",
    "a b",
    ".hid",
    "[]a]",
    "x[[:digit:]1",
    "**x",
    "é*",
    "[[:punct:]]*",
    "[^b]",
    "#",
    "\\#",
]
patterns = st.builds(
    lambda bang, first, parts, last: bang + first + "/".join(parts) + last,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(st.sampled_from(_PARTS), min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", " ", "\r"]),
)
rules = st.lists(patterns, max_size=5).map("\n".join)


def by_git(files: dict[str, str]) -> set[str]:
    """The paths that git ignores under these ignore files."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "-q", folder], env=environment, check=True)
        for path in (*PATHS, *files):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files.get(path, ""))
        asked = ["git", "check-ignore", "--no-index", "-z", "--stdin"]
        given_paths = "".join(f"./{path}\0" for path in PATHS).encode()
        done = subprocess.run(
            asked, cwd=root, env=environment, input=given_paths, capture_output=True, check=False
        )
        return {path.removeprefix("./") for path in done.stdout.decode().split("\0") if path}


@given(rules, rules)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_what_git_ignores_is_ignored(top: str, inner: str) -> None:
    files = {".gitignore": top, "src/.gitignore": inner}
    ignored = Ignored({path: text(content) for path, content in files.items()})
    assert {path for path in PATHS if ignored.covering(path) is not None} == by_git(files)


def test_a_folder_covers_what_is_in_it() -> None:
    ignored = Ignored({".gitignore": text("out\n!out/kept\n/src/*\n!/src/a\n")})
    assert ignored.covering("out/kept") == "out"
    assert ignored.covering("deep/out/x/y") == "deep/out"
    assert ignored.covering("src/b/c") == "src/b"
    assert ignored.covering("src/a") is None


@pytest.mark.parametrize("bytes_more", [0, 1])
def test_rule_files_are_read_up_to_a_mebibyte(bytes_more: int) -> None:
    content = "out\n" + "#" * ((1 << 20) - 4 + bytes_more)
    assert (Ignored({".gitignore": text(content)}).covering("out/x") == "out") is (bytes_more == 0)

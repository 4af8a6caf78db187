"""What a patch changes, read out of its text."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.ctl.patch_text import PatchedFile, in_short, patched_files


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_patch_of_gits_own(tmp_path: Path) -> None:
    def git(*words: str) -> bytes:
        named = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        return subprocess.run(named, cwd=tmp_path, capture_output=True, check=True).stdout

    odd = os.fsdecode(b'q"uote\\ \xff\ttab')
    for name, content in {
        "changed": "1\n2\n3\n", "gone": "a\nb\n", "a b": "1\n", "moved": "x\n" * 20, "mode": "m\n",
        odd: "1\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "x")
    # Content that looks like a patch's own lines.
    (tmp_path / "changed").write_text("1\n-- a/gone\n++ b/gone\n3\n")
    (tmp_path / "gone").unlink()
    (tmp_path / "a b").write_text("2")
    (tmp_path / "moved").rename(tmp_path / "sub é")
    (tmp_path / "mode").chmod(0o755)
    (tmp_path / odd).write_text("2\n")
    (tmp_path / "empty").touch()
    (tmp_path / "bin").write_bytes(bytes(256))
    git("add", "-A")
    found = patched_files(git("diff", "--cached", "--binary", "-M"))
    assert sorted(found, key=lambda file: file.path) == sorted(
        [
            PatchedFile("a b", added=1, removed=1),
            PatchedFile("bin", "new", binary=True),
            PatchedFile("changed", added=2, removed=1),
            PatchedFile("empty", "new"),
            PatchedFile("gone", "deleted", removed=2),
            PatchedFile("mode"),
            PatchedFile(odd, added=1, removed=1),
            PatchedFile("sub é", "renamed"),
        ],
        key=lambda file: file.path,
    )
    assert in_short(found) == "8 files, +4 -5"


@given(
    st.lists(
        st.sampled_from(
            [b"diff --git a/x b/x", b'diff --git "a/x" "b/\\377"', b"diff --git ", b"@@ -1 +1 @@",
             b"@@ -1,9999999 +1,0 @@", b"@@ -,1 +1 @@", b"+x", b"-x", b" x", b"\\ no", b"rename to y",
             b'rename to "', b"copy to ", b"", b"\xff", b"GIT binary patch"]
        )
        | st.binary(max_size=12)
    )
)  # fmt: skip
def test_anything_is_read_without_an_error(lines: list[bytes]) -> None:
    found = patched_files(b"\n".join(lines))
    assert len(found) <= len(lines)
    assert sum(each.added + each.removed for each in found) <= len(lines)
    in_short(found)

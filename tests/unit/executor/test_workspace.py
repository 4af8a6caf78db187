"""Which files are artifacts, and which are refused."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.executor.backend import FileEntry, Sandbox
from chorus.executor.globs import Globs, TooMuchWork
from chorus.executor.redaction import Sentinel, cut_text
from chorus.executor.workspace import Artifacts, choose_artifacts, collect


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("report.xml", "report.xml", True),
        ("report.xml", "a/report.xml", False),
        ("*.xml", "a/b.xml", False),
        ("**/*.xml", "a/b.xml", True),
        ("**/*.xml", "b.xml", True),
        ("out", "out/deep/file", True),
        ("out/*", "out/x", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("**", "a/b", True),
        ("out/**", "out", False),
        ("out/**", "out/a/b", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
        ("a**b", "ax/yb", True),
        ("a**/b", "ab", True),
        ("*", ".hidden", True),
        ("**/**/x", "x", True),
        ("***", "a/b", True),
        ("[a]", "a", True),
        ("[a]", "[a]", False),
        ("[[]a]", "[a]", True),
        (r"\[a]", "[a]", True),
        (r"\[a]", "a", False),
        (r"\*", "x", False),
        (r"a\{b,c}", "a{b,c}", True),
        ("[a-cx]1", "b1", True),
        ("[a-cx]1", "x1", True),
        ("[a-cx]1", "d1", False),
        ("[!a-c]", "d", True),
        ("[^a-c]", "b", False),
        ("[!a]b", "/b", False),
        ("x[!a]y", "x/y", False),
        ("[]a]", "]", True),
        ("[a-]", "-", True),
        ("[a", "[a", True),
        ("[", "[", True),
        ("[z-a]", "m", False),
        ("[é-ü]", "ö", True),
        ("*.{xml,json}", "a.json", True),
        ("*.{xml,json}", "a.txt", False),
        ("{a,b}/{c,d}", "b/c", True),
        ("{a,{b,c}d}", "cd", True),
        ("{a,{b,c}d}", "c", False),
        ("a{,.gz}", "a", True),
        ("a{,.gz}", "a.gz", True),
        ("{a}", "{a}", True),
        ("{}", "{}", True),
        ("{a,b", "{a,b", True),
        ("a,b}", "a,b}", True),
        ("{a,{b,c}", "{a,b", True),
        ("{out/**,*.log}", "out/x/y", True),
        ("{out,lib}", "lib/x/y", True),
    ],
)
def test_globs(glob: str, path: str, fits: bool) -> None:
    assert Globs([glob]).match(path) is fits


def test_the_globs_that_fit_nothing_are_known() -> None:
    matcher = Globs(["*.{xml,json}", "*.txt", "out", "out", "{a,b}"])
    assert [matcher.match(path) for path in ("b.json", "out/x", "c")] == [True, True, False]
    assert matcher.unmatched() == ["*.txt", "{a,b}"]


def test_braces_that_stand_for_too_much_are_refused_and_the_others_kept() -> None:
    """Twenty pairs stand for a million globs."""
    many = "{a,b}" * 20
    matcher = Globs([many, "{" + "," * 2000 + "}", "{x,y}"])
    assert matcher.refused == [many, "{" + "," * 2000 + "}"]
    assert matcher.match("y")
    assert matcher.unmatched() == []
    assert Globs(["{a,b}" * 10]).match("ab" * 5)


def reference(glob: str) -> re.Pattern[str]:
    """What a glob means, as a pattern that may take forever."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "[!a]": "[^a/]", "[a-b]": "[ab]"}
    parts = re.findall(r"\*\*/|\*\*|\[!a\]|\[a-b\]|.", glob, re.DOTALL)
    return re.compile("(?s:" + "".join(signs.get(part) or re.escape(part) for part in parts) + ")(?:/.*)?")


@settings(max_examples=2000, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([*"*?/ab", "[!a]", "[a-b]"]), min_size=1, max_size=8).map("".join),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4), max_size=4),
)
def test_globs_mean_what_their_patterns_mean(globs: list[str], parts: list[list[str]]) -> None:
    matcher = Globs(globs)
    for path in map("/".join, parts):
        assert matcher.match(path) is any(reference(glob).fullmatch(path) for glob in globs)


@pytest.mark.parametrize(
    "glob",
    [
        "**/" * 12 + "x",
        "**/a/" * 12 + "x",
        "*a" * 40 + "x",
        "**a" * 40 + "x",
        "a**/" * 40 + "x",
        "?" * 900,
        "**[a-z]" * 40 + "x",
        "**[!x]" * 40 + "x",
        "**{a,b}" * 3 + "x",
    ],
)
def test_no_glob_takes_more_steps_than_its_paths_have_characters(glob: str) -> None:
    """With backtracking each of these would take longer than anybody waits."""
    path = "a/" * 30 + "a" * 200
    assert not Globs([glob], steps_max=4 * len(path)).match(path)


def test_the_work_for_one_workspace_is_bounded() -> None:
    matcher = Globs(["*" + "x" * 1000] * 64, steps_max=10_000)
    with pytest.raises(TooMuchWork):
        any(matcher.match(f"{n:06d}") for n in range(1000))


def test_folders_are_walked_once() -> None:
    deep = "/".join(["folder"] * 100)
    matcher = Globs(["**/*.xml"], steps_max=len(deep) + 1 + 1000 * 10)
    assert sum(matcher.match(f"{deep}/{n}.xml") for n in range(1000)) == 1000


def test_a_path_of_very_many_folders_costs_no_more_than_its_characters() -> None:
    deep = "a/" * 500_000
    matcher = Globs(["**/*.xml"], steps_max=2 * len(deep) + 100)
    assert matcher.match(f"{deep}b.xml")
    assert len(matcher._folders) == 1


def test_what_takes_too_long_is_refused_and_the_rest_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus.executor.workspace.Globs", partial(Globs, steps_max=3))
    found = Artifacts()
    chosen = choose_artifacts([FileEntry(name, "file", 1) for name in ("aa", "bb")], ["*"], found)
    assert list(chosen) == ["aa"]
    assert "take too long to match" in found.left_out[0]["reason"]


async def test_the_loop_is_free_while_files_are_matched(tmp_path: Path) -> None:
    """The matching runs beside the loop: what it waits for here is done on the loop."""
    matching = threading.Event()
    go_on = threading.Event()

    class Entries(list[FileEntry]):
        def __iter__(self) -> Iterator[FileEntry]:
            matching.set()
            assert go_on.wait(60)
            return super().__iter__()

    class Workspace:
        async def files(self) -> list[FileEntry]:
            return Entries()

    work = asyncio.create_task(collect(cast(Sandbox, Workspace()), ["*"], tmp_path, tmp_path, str))
    await asyncio.to_thread(matching.wait, 60)
    go_on.set()
    assert (await work).items == []


def test_a_long_chain_of_links_is_followed_to_its_end() -> None:
    entries = [FileEntry("0", "file", 1), *(FileEntry(str(n), "link", 0, str(n - 1)) for n in range(1, 300))]
    chosen = choose_artifacts(list(reversed(entries)), ["*"], Artifacts())
    assert {entry.path for entry in chosen.values()} == {"0"}
    assert len(chosen) == 300


def test_links_lead_inside_or_are_refused() -> None:
    entries = [
        FileEntry("d", "directory", 0),
        FileEntry("d/f", "file", 3),
        FileEntry("in", "link", 0, "d/f"),
        FileEntry("abs", "link", 0, "/workspace/d/f"),
        FileEntry("out", "link", 0, "/etc/passwd"),
        FileEntry("up", "link", 0, "../x"),
        FileEntry("ring", "link", 0, "ring"),
        FileEntry("pipe", "other", 0),
        FileEntry("a\nb", "file", 1),
        FileEntry("\x9b2J", "file", 1),
    ]
    found = Artifacts()
    chosen = choose_artifacts(entries, ["*", "**"], found)
    assert {name: entry.path for name, entry in chosen.items()} == {"d/f": "d/f", "in": "d/f", "abs": "d/f"}
    assert {item["path"] for item in found.left_out} == {"out", "up", "ring", "pipe", r"a\nb", r"\x9b2J"}


def test_a_file_whose_name_holds_a_secret_is_left_out_and_named_without_it() -> None:
    token = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
    redactor = Sentinel([b"the task's own"])
    entries = [FileEntry(path, "file", 1, "") for path in ("a", f"out/{token}.txt", "the task's own")]
    entries.append(FileEntry("link", "link", 0, f"/etc/{token}"))
    found = Artifacts()
    chosen = choose_artifacts(entries, ["**"], found, lambda text: cut_text(text, redactor))
    assert list(chosen) == ["a"]
    assert token not in repr(found.left_out)
    assert {item["path"]: item["reason"] for item in found.left_out} == {
        "link": "a link out of the workspace or to nothing: /etc/[REDACTED:github-token]",
        "out/[REDACTED:github-token].txt": "its name holds a secret",
        "[REDACTED:task-secret]": "its name holds a secret",
    }

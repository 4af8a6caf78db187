"""Which files are artifacts, and which are refused."""

from __future__ import annotations

import pytest

from chorus.executor.backend import FileEntry
from chorus.executor.workspace import Artifacts, choose_artifacts, glob_pattern


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
    ],
)
def test_globs(glob: str, path: str, fits: bool) -> None:
    assert bool(glob_pattern(glob).fullmatch(path)) is fits


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
    assert {item["path"] for item in found.refused} == {"out", "up", "ring", "pipe", "a\nb", "\x9b2J"}

"""Trees of files for the tests of patches: as text, at random, and on a disk."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st

from chorus.executor.patch import File, Tree
from chorus.executor.patch.tree import LINK, Mode, folders_of, leads_out

_NAMES = [
    "a",
    "b",
    "src",
    "x.py",
    "-",
    "sp ace",
    "tab\t",
    'quo"te',
    "back\\slash",
    "naïve",
    "new\nline",
    "\udcff\udcfe",
]
_LINES = [b"one\n", b"two\n", b"three\n", b"\n", b"  x = 1\n", b"end\r\n", b"+++ b/x\n", b"\xff\xfe\n"]

names = st.sampled_from(_NAMES)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
texts = st.builds(
    lambda lines, last: b"".join(lines) + last,
    st.lists(st.sampled_from(_LINES), max_size=30),
    st.sampled_from([b"", b"no end", b"\xff"]),
)
contents = st.one_of(texts, texts, st.binary(max_size=200), st.just(b"\0" * 300))
plain = st.builds(File.of, st.sampled_from(["100644", "100755"]), contents)
targets = st.sampled_from([b"a", b"src/x.py", b"/usr/bin/python3", b"\xff", b"sp ace", b"../a"])
links = targets.map(lambda target: File.of(LINK, target))
files = st.one_of(plain, plain, plain, links)


def _whole(found: dict[str, File]) -> dict[str, File]:
    """Without files below other files and without links that lead out."""
    return {
        path: file
        for path, file in found.items()
        if not any(folder in found for folder in folders_of(path))
        and not (file.mode == LINK and leads_out(path, file.read()))
    }


trees = st.dictionaries(paths, files, max_size=8).map(_whole)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """A tree and what became of it: some files kept, edited, moved, gone, and some new."""
    before = draw(trees)
    after = dict(draw(st.dictionaries(paths, files, max_size=3)))
    for path, file in before.items():
        match draw(st.sampled_from(["same", "same", "gone", "moved", "mode", "edited"])):
            case "same":
                after[path] = file
            case "moved":
                after[draw(paths)] = file
            case "mode" if file.mode != LINK:
                after[path] = File.of("100644" if file.mode == "100755" else "100755", file.read())
            case "edited":
                after[path] = File.of("100644", _edited(draw, file.read()))
    return before, _whole(after)


def _edited(draw: st.DrawFn, content: bytes) -> bytes:
    place = draw(st.integers(0, len(content)))
    return content[:place] + draw(st.sampled_from(_LINES)) + content[draw(st.integers(place, len(content))) :]


def text(content: str | bytes, mode: Mode = "100644") -> File:
    """One file."""
    return File.of(mode, content.encode() if isinstance(content, str) else content)


def put_down(files: Tree, folder: Path) -> None:
    """Writes a tree into an empty folder."""
    for path, file in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == LINK:
            place.symlink_to(os.fsdecode(file.read()))
        else:
            place.write_bytes(file.read())
            place.chmod(int(file.mode, 8) & 0o777)


def picked_up(folder: Path) -> Tree:
    """The tree in a folder."""
    found: dict[str, File] = {}
    for place in folder.rglob("*"):
        path = str(place.relative_to(folder))
        if place.is_symlink():
            found[path] = File.of(LINK, os.fsencode(place.readlink()))
        elif place.is_file():
            mode: Mode = "100755" if place.stat().st_mode & 0o100 else "100644"
            found[path] = File.of(mode, place.read_bytes())
    return found

"""A folder of any shape goes in by `run --dir` and comes out as artifacts; what is missing is named."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus.wire.visible import visible

from .conftest import Mesh, brought_up

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

NAMES = (
    b"f",
    b"\xc3\xbc",
    b"with space",
    b"new\nline",
    b"\xff\xfe",
    b"-rf",
    b"*",
    b"[a]{b,c}",
    b"\\",
    b"n" * 250,
)
TARGETS = (
    b"/usr/bin/env",
    b"/workspace/first",
    b"/nowhere",
    b"..",
    b"../../x",
    b"first",
    b".",
    b"./f//",
    b"\xff",
)


@pytest.fixture(scope="module")
def agent(needs: None) -> Iterator[Mesh]:
    yield from brought_up(1)


def made(root: Path, rng: random.Random) -> None:
    """Folders, some of them repositories, with files, links and special files of odd names and modes."""
    (root / "first").write_bytes(b"first")
    folders = [root]
    for n in range(80):
        name = os.fsdecode((rng.choice(NAMES) + b"%d" % n)[-255:])
        path = rng.choice(folders) / name
        match rng.randrange(10):
            case 0 | 1:
                path.mkdir()
                folders.append(path)
            case 2:
                path.symlink_to(os.fsdecode(rng.choice(TARGETS)))
            case 3:
                os.mkfifo(path)
            case 4:
                path.mkdir()
                subprocess.run(["git", "init", "-q"], cwd=path, check=True)
                (path / ".gitignore").write_bytes(b"*.o\nbuild/\n")
                (path / "build").mkdir()
                (path / "build" / "x").write_bytes(b"x")
                (path / "x.o").write_bytes(b"o")
                folders.append(path)
            case _:
                path.write_bytes(rng.randbytes(rng.choice([0, 1, 512, 5000, 100_000])))
                path.chmod(rng.randrange(0o1000))
    bound(root / "socket")
    # What this user may not read cannot be packed, and is named then.
    for folder in folders[1:]:
        folder.chmod(rng.choice([0o755, 0o700, 0o555, 0o500, 0o777, 0o300]))


def bound(path: Path) -> None:
    """A socket, made by its short name: its whole path may be too long for one."""
    here = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as made_here:
            made_here.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def shown(path: str) -> str:
    """A name as results show it."""
    return visible(os.fsencode(path).decode("utf-8", "backslashreplace"))


def sent(root: Path) -> list[str]:
    """Every path below the folder that is no folder with something in it."""
    found = []
    for folder, folders, files in os.walk(root):
        places = [*files, *(name for name in folders if Path(folder, name).is_symlink())]
        if folder != str(root) and not files and not folders:
            found.append(os.path.relpath(folder, root))
        found += [os.path.relpath(os.path.join(folder, name), root) for name in places]  # noqa: PTH118
    return found


def covered(path: str, named: set[str]) -> bool:
    """Whether it is named itself, or a folder that it lies in is."""
    parts = path.split("/")
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(each in named or f"{each}/" in named for each in above)


@pytest.mark.parametrize("seed", range(4))
def test_a_folder_comes_out_equal_or_what_is_missing_is_named(agent: Mesh, tmp_path: Path, seed: int) -> None:
    root, into = tmp_path / "root", tmp_path / "into"
    root.mkdir()
    made(root, random.Random(seed))
    words = ["--json", "--dir", str(root), "--artifact", "**", "-o", str(into), "--", "true"]
    events = [json.loads(line) for line in agent.ctl("run", *words).stdout.splitlines()]
    [packed] = [event["data"] for event in events if event["event"] == "packed"]
    [kept] = [event["data"] for event in events if event["event"] == "artifacts"]
    behind = {each["file"] for each in packed["left_out"]}
    not_kept = {each["path"] for each in kept["left_out"]}
    missing = []
    for path in sent(root):
        if covered(path, behind) or covered(shown(path), not_kept):
            continue
        out, source = into / path, root / path
        if source.is_symlink() and os.readlink(source).startswith("/workspace/"):  # noqa: PTH115
            source = root / os.readlink(source).removeprefix("/workspace/")  # noqa: PTH115
        if not out.is_file():
            missing.append(path)
            continue
        assert out.read_bytes() == source.read_bytes(), path
        # Owners can read what is theirs.
        mode = stat.S_IMODE(source.stat().st_mode) | stat.S_IRUSR
        assert stat.S_IMODE(out.stat().st_mode) == mode, path
    assert missing == []
    # And nothing came out that did not go in, or whose name is told as left out.
    for item in kept["artifacts"]:
        assert os.path.lexists(root / item["path"])
        assert not covered(item["path"], behind | not_kept)

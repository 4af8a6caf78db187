"""Whatever a task left in its workspace: each file comes out as it is, or is named with what kept it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.executor import workspace
from chorus.executor.backend import FileEntry, Sandbox, SandboxError
from chorus.executor.docker import sandbox as docker_sandbox
from chorus.executor.journal import ARTIFACT_FOLDER, ARTIFACTS
from chorus.executor.workspace import Artifacts, collect
from chorus.table.entries import Artifact, LeftOut

SESSION = Path(docker_sandbox.__file__).with_name("session.sh").read_text()


def session(function: str, folder: Path, names: bytes = b"") -> bytes:
    """What a function of the session sends for a folder."""
    body = re.search(rf"^{function}\(\) \{{\n.*?^\}}", SESSION, re.MULTILINE | re.DOTALL)
    assert body is not None
    size = f"{len(names)} " if function == "get" else ""
    script = f'mark() {{ :; }}\n{body[0]}\n{function} token {size}"$1" 7>&1'
    ran = subprocess.run(["bash", "-c", script, "session", folder], input=names, capture_output=True)
    return ran.stdout


class Workspace:
    """A folder of this machine, read as a sandbox's is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def files(self) -> list[FileEntry]:
        return docker_sandbox._read_listing(await asyncio.to_thread(session, "list", self.folder))

    async def get(self, paths: Sequence[str], into: Path, *, bytes_max: int) -> None:
        names = b"".join(f"./{path}".encode("utf-8", "surrogateescape") + b"\0" for path in paths)
        packed = await asyncio.to_thread(session, "get", self.folder, names)
        await asyncio.to_thread(into.write_bytes, packed)


async def collected(source: Path, kept: Path, globs: Sequence[str] = ("**",)) -> Artifacts:
    """The artifacts of a folder, stored in another."""
    found = await collect(cast(Sandbox, Workspace(source)), globs, kept, kept / "scratch", str)
    assert orjson.loads((kept / ARTIFACTS).read_bytes()) == {"items": found.items, "left_out": found.left_out}
    for item in found.items:
        Artifact.model_validate({name: item[name] for name in ("path", "size", "sha256", "mode")})
    for each in found.left_out:
        LeftOut.model_validate(each)
    return found


def content(kept: Path, found: Artifacts) -> dict[str, tuple[bytes, str]]:
    return {
        item["path"]: ((kept / ARTIFACT_FOLDER / item["file"]).read_bytes(), item["mode"])
        for item in found.items
    }


def told(path: str) -> str:
    return workspace._shown(path, workspace.NAME_CHARS_MAX)


NAMES = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from(
        [b"a", b"b", b"-x", b"pax_global_header", b"\xc3\xa9", b" ", b"*", b"[", b"n\nl", b"x" * 255]
    ),
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
MODES = st.integers(0, 0o777)
TIMES = st.sampled_from([0, 1, -1, -(2**31), 2**33, 253402300800])
NODES = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), st.binary(max_size=2000), MODES, TIMES),
        st.tuples(
            st.just("link"), st.one_of(NAMES, st.just(b"../b"), st.just(b"/etc/passwd"), st.just(b"\xff"))
        ),
        st.tuples(st.just("hard"), st.integers(0, 5)),
        st.just(("fifo",)),
    ),
    lambda nodes: st.dictionaries(NAMES, nodes, max_size=4),
    max_leaves=12,
)


def build(folder: Path, node: Any, files: list[Path]) -> None:
    """Makes what is generated; a hard link is one to a file that was made before."""
    folder.mkdir()
    for name, child in node.items():
        path = folder / os.fsdecode(name)
        if isinstance(child, dict):
            build(path, child, files)
        elif child[0] == "file":
            path.write_bytes(child[1])
            path.chmod(child[2] | 0o400)
            os.utime(path, (0, child[3]))
            files.append(path)
        elif child[0] == "link":
            path.symlink_to(os.fsdecode(child[1]))
        elif child[0] == "hard" and files:
            path.hardlink_to(files[child[1] % len(files)])
        elif child[0] == "fifo":
            os.mkfifo(path)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, NODES, max_size=6))
def test_every_file_comes_out_as_it_is_or_is_named(tree: dict[bytes, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, kept = Path(scratch) / "source", Path(scratch) / "kept"
        build(source, tree, [])
        kept.mkdir()
        found = asyncio.run(collected(source, kept))
        out = content(kept, found)
        named = {item["path"] for item in found.left_out}
        for path in source.rglob("*"):
            name = str(path.relative_to(source))
            if name in out:
                assert path.is_file()
                assert out.pop(name) == (path.read_bytes(), f"{path.stat().st_mode & 0o777:04o}")
            elif path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
                assert told(name) in named
        assert out == {}
        # A plain file is left out for its name alone.
        for item in found.left_out:
            assert re.match("a link|an empty|neither|its name|no file fits", item["reason"])


async def test_a_glob_that_fits_nothing_is_said(tmp_path: Path) -> None:
    source, kept = tmp_path / "source", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    (source / "a.xml").write_bytes(b"1")
    found = await collected(source, kept, ["*.{xml,json}", "coverage", "*.txt"])
    assert list(content(kept, found)) == ["a.xml"]
    assert {item["path"] for item in found.left_out} == {"coverage", "*.txt"}
    assert {item["reason"] for item in found.left_out} == {"no file fits this pattern"}


async def test_paths_that_nothing_opens_are_named(tmp_path: Path) -> None:
    source, kept = tmp_path / "source", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    (source / "good").write_bytes(b"1")
    here = os.open(source, os.O_RDONLY)
    for _ in range(45):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = await collected(source, kept)
    assert list(content(kept, found)) == ["good"]
    [item] = found.left_out
    assert item["path"].startswith("d" * 100)
    assert "longer than 4093 bytes" in item["reason"]
    shutil.rmtree(source)


async def test_what_tar_cannot_give_is_named_and_the_rest_kept(tmp_path: Path) -> None:
    """Of three files, one is gone when it is packed, and the archive breaks off in another."""

    class Broken(Workspace):
        async def get(self, paths: Sequence[str], into: Path, *, bytes_max: int) -> None:
            (self.folder / "a").unlink()
            await super().get(paths, into, bytes_max=bytes_max)
            os.truncate(into, 2 * 512 + 512 + 100)

    source, kept = tmp_path / "source", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    for name in "abc":
        (source / name).write_bytes(name.encode() * 300)
    found = await collect(cast(Sandbox, Broken(source)), ["*"], kept, kept / "scratch", str)
    assert [item["path"] for item in found.items] == ["b"]
    assert {item["path"] for item in found.left_out} == {"a", "c"}


@pytest.mark.parametrize(
    "error", [SandboxError("gone"), OSError(28, "No space left"), TypeError("a mistake")]
)
async def test_nothing_is_raised_once_the_commands_have_ended(tmp_path: Path, error: Exception) -> None:
    class Failing(Workspace):
        async def get(self, paths: Sequence[str], into: Path, *, bytes_max: int) -> None:
            raise error

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"1")
    found = await collect(cast(Sandbox, Failing(tmp_path / "source")), ["*"], tmp_path, tmp_path / "s", str)
    assert found.items == []
    assert [item["path"] for item in found.left_out] == [""]
    assert str(error) in found.left_out[0]["reason"]


async def test_many_that_are_left_out_are_counted() -> None:
    found = Artifacts()
    for number in range(workspace.LEFT_OUT_MAX + 5):
        found.leave_out(str(number), "why")
    assert len(found.left_out) == workspace.LEFT_OUT_MAX + 1
    assert found.left_out[-1] == {"path": "", "reason": "5 more were left out"}

"""Whatever an archive holds, the process that wanted it read is none the worse."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tarfile
from pathlib import Path

import pytest

from chorus.archives import confined
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge
from chorus.testing import hostile_archives as hostile

MIB = hostile.MIB


@pytest.mark.parametrize("name", list(hostile.BOMBS))
async def test_a_bomb_is_refused(name: str, tmp_path: Path) -> None:
    """The disk is large enough for it, so that no other wall stands before the reader's own."""
    bomb, into = tmp_path / "bomb", tmp_path / "out.tar"
    bomb.write_bytes(hostile.BOMBS[name]())
    bytes_max = 64 * MIB if name == "content" else 16 * hostile.UNPACKED_BYTES
    with pytest.raises(ArchiveRefused) as refused:
        await confined.clean(bomb, into, bytes_max=bytes_max)
    assert "memory" not in str(refused.value)
    assert into.stat().st_size <= bytes_max


async def test_memory_without_end_is_the_childs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await _with_script(tmp_path, monkeypatch, "held = []\nwhile True: held.append(bytes(1 << 20))")
    assert "MiB of memory" in said


async def test_time_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await _with_script(tmp_path, monkeypatch, "child.CPU_MAX_S = 1\nchild._limit(0)\nwhile True: pass")
    assert "of a processor" in said


async def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "DEADLINE_S", 1.0)
    pid = tmp_path / "pid"
    script = f"import os, signal\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nsignal.pause()"
    assert "longer than" in await _with_script(tmp_path, monkeypatch, script)
    if pid.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


async def test_a_child_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    assert str(-signal.SIGKILL) in await _with_script(tmp_path, monkeypatch, script)


async def _with_script(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    """What is said of an archive whose reading does what the script does."""
    root = confined.CHILD.parents[2]
    inner = "\n".join(f"    {line}" for line in script.splitlines())
    path = folder / "child.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(root)!r})\nfrom chorus.archives import child, clean\n"
        f"def bad(*args, **kinds):\n{inner}\nclean.sanitize = bad\nchild.main()\n"
    )
    monkeypatch.setattr(confined, "CHILD", path)
    source = folder / "source"
    source.touch()
    with pytest.raises(ArchiveRefused) as refused:
        await confined.check(source, bytes_max=MIB)
    return str(refused.value)


async def test_what_is_checked_says_its_size(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(hostile.plain({"a": b"x" * 5000}))
    assert 5000 <= await confined.check(source, bytes_max=MIB) <= 10240
    with pytest.raises(ArchiveTooLarge):
        await confined.check(source, bytes_max=5000)


async def test_the_agents_own_disk_is_not_the_archives_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await confined.check(tmp_path / "nothing", bytes_max=MIB)
    source = tmp_path / "source"
    source.write_bytes(hostile.plain({"a": b""}))
    with pytest.raises(NotADirectoryError):
        await confined.clean(source, source / "out", bytes_max=MIB)


async def test_files_are_taken_out_under_numbers(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("./b", b"2"), ("./\udcff\n", b"3"), ("./unasked", b"4"), ("/abs", b"5")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("./same")
        link.type, link.linkname = tarfile.LNKTYPE, "./b"
        tar.addfile(link)
    (tmp_path / "packed").write_bytes(out.getvalue())
    wanted = ["b", "\udcff\n", "same"]
    stored, broken = await confined.take(tmp_path / "packed", wanted, tmp_path, bytes_max=MIB)
    digest = hashlib.sha256(b"2").hexdigest()
    assert stored["b"] == stored["same"] == ("00000", 1, digest, 0o644)
    assert (tmp_path / stored["\udcff\n"][0]).read_bytes() == b"3"
    assert names_in(tmp_path) == ["00000", "00001", "packed"]
    assert broken == ""


@pytest.mark.parametrize("mtime", ["inf", "-inf", "nan", "-1", "1e400", "9" * 19, "0.5", ""])
async def test_odd_times_and_headers_of_all_members_lose_nothing(tmp_path: Path, mtime: str) -> None:
    out = io.BytesIO()
    headers = {"comment": "of all"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        for name in ("pax_global_header", "n" * 255):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 1, {"mtime": mtime}
            tar.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "packed").write_bytes(out.getvalue())
    wanted = ["pax_global_header", "n" * 255]
    stored, broken = await confined.take(tmp_path / "packed", wanted, tmp_path, bytes_max=MIB)
    assert (sorted(stored), broken) == (sorted(wanted), "")


async def test_what_comes_before_the_damage_is_taken(tmp_path: Path) -> None:
    """A file is taken whole or not at all, and what kept the others is said."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size, member.mode = 1000, 0o4755
            tar.addfile(member, io.BytesIO(name.encode() * 1000))
    for cut, kept in (
        (100, []),
        (600, []),
        (1536, ["a"]),
        (2048 + 100, ["a"]),
        (3000, ["a"]),
        (3100, ["a", "b"]),
    ):
        (tmp_path / "packed").write_bytes(out.getvalue()[:cut])
        folder = tmp_path / str(cut)
        folder.mkdir()
        stored, broken = await confined.take(tmp_path / "packed", ["a", "b"], folder, bytes_max=MIB)
        assert [(name, size, mode) for name, (_, size, _, mode) in stored.items()] == [
            (name, 1000, 0o755) for name in kept
        ]
        assert len(names_in(folder)) == len(kept)
        # At 1,536 bytes the archive ends between two members, where nothing but its end is missing.
        assert ("cut short" if cut == 1536 else "too early") in broken


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())

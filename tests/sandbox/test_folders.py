"""A folder of any shape that `run --dir` packs lies in a real sandbox as it lay here."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from pathlib import Path

import pytest

from chorus.archives.clean import sanitize
from chorus.ctl.pack import LINK_OUT, pack
from chorus.ctl.tree import walk
from chorus.testing.sandbox_contract import MIB, Acquire, bench

pytestmark = pytest.mark.docker

Shape = dict[str, tuple[str, int, bytes]]


def made(root: Path, rng: random.Random) -> None:
    """Folders in folders, with files, links and special files of odd names and modes."""
    folders = [root]
    for n in range(60):
        into = rng.choice(folders)
        name = rng.choice(["f", "ü", "with space", "new\nline", "\udcff\udcfe", "-rf", "*", "n" * 250]) + str(
            n
        )
        path = into / name.encode(errors="surrogateescape")[-255:].decode(errors="surrogateescape")
        match rng.randrange(8):
            case 0 | 1:
                path.mkdir()
                folders.append(path)
            case 2:
                targets = ["/usr/bin/env", "/nowhere", "..", "../../x", "f0", ".", "./f//", "\udcff"]
                path.symlink_to(rng.choice(targets))
            case 3:
                os.mkfifo(path)
            case _:
                path.write_bytes(rng.randbytes(rng.choice([0, 1, 512, 5000, 100_000])))
                path.chmod(rng.randrange(0o1000) | 0o400)
    for folder in folders[1:]:
        folder.chmod(rng.choice([0o755, 0o700, 0o555, 0o500, 0o777]))


def here(root: Path, left_out: set[str]) -> Shape:
    found: Shape = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            relative, info = str(path.relative_to(root)), path.lstat()
            if relative in left_out:
                continue
            if stat.S_ISLNK(info.st_mode):
                found[relative] = ("link", 0, os.fsencode(os.readlink(path)))  # noqa: PTH115
            elif stat.S_ISDIR(info.st_mode):
                found[relative] = ("folder", stat.S_IMODE(info.st_mode), b"")
            else:
                found[relative] = ("file", stat.S_IMODE(info.st_mode), path.read_bytes())
    return found


def there(packed: bytes) -> Shape:
    found: Shape = {}
    with tarfile.open(fileobj=io.BytesIO(packed), encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.issym():
                found[name] = ("link", 0, os.fsencode(member.linkname))
            elif member.isdir():
                found[name] = ("folder", member.mode, b"")
            else:
                content = archive.extractfile(member)
                assert content is not None
                found[name] = ("file", member.mode, content.read())
    found.pop(".", None)
    return found


async def test_a_folder_lies_in_the_sandbox_as_it_lay_here(acquire: Acquire, tmp_path: Path) -> None:
    box = await bench(acquire)
    for seed in range(4):
        root = tmp_path / str(seed)
        root.mkdir()
        made(root, random.Random(seed))
        tree = walk(root)
        with io.BytesIO() as packed:
            others = pack(tree.root, [*tree.folders, *tree.files], packed)
            packed.seek(0)
            sanitize(packed, tmp_path / "clean.tar", bytes_max=32 * MIB)
        left_out = {each.file: each.why for each in (*tree.left_out, *others)}
        assert set(left_out.values()) <= {"a FIFO", LINK_OUT}
        await box.sandbox.put(tmp_path / "clean.tar")
        # Root of the tests writes where a user may not; the sandbox's user owns what is there.
        end = await box.run("tar -c -f - . && chmod -R u+rwx . && rm -rf -- * .[!.]*")
        assert end.exit_code == 0, box.sink.take("stderr")
        assert there(box.sink.take()) == here(root, set(left_out)), seed

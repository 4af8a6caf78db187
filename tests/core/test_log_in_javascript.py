"""The log's folder is a Hypercore: the JavaScript one reads and verifies it, by examples/js-log."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("chorus._core")

from chorus.core import Log

from .conftest import PATIENCE_S, StartNode

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "js-log"
NPM_TIMEOUT_S = 600
# More entries than one page of a bitfield that the core reads back itself.
MANY = 9000
BATCH = 500


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that reads a folder, its packages installed outside the checkout."""
    if shutil.which("npm") is None:
        pytest.skip("no Node.js")
    folder = tmp_path_factory.mktemp("js") / "js-log"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--no-fund", "--no-audit"]
    subprocess.run(command, cwd=folder, check=True, timeout=NPM_TIMEOUT_S)
    return ["node", str(folder / "read.mjs")]


async def written(start_node: StartNode, data_dir: Path, count: int) -> None:
    node = await start_node(data_dir=data_dir)
    log = Log(node.hub)
    for start in range(0, count, BATCH):
        numbers = range(start, min(count, start + BATCH))
        await asyncio.gather(*(log.append("note", {"n": n}) for n in numbers))
    await node.close()


def read(reader: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    # Hypercore writes to what it opens.
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    return subprocess.run([*reader, str(copy)], capture_output=True, timeout=PATIENCE_S * 4)


@pytest.mark.parametrize("count", [7, MANY])
async def test_all_entries_are_read_and_verified(
    reader: list[str], start_node: StartNode, data_dir: Path, count: int
) -> None:
    await written(start_node, data_dir, count)
    folder = data_dir / "core" / "log"
    # As the agent left it, and as it is after an opening that added nothing.
    for _ in range(2):
        done = await asyncio.to_thread(read, reader, folder)
        assert done.returncode == 0, done.stderr.decode()
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        assert sorted(entry["data"]["n"] for entry in entries) == list(range(count))
        await written(start_node, data_dir, 0)


async def test_a_forged_entry_is_found(reader: list[str], start_node: StartNode, data_dir: Path) -> None:
    await written(start_node, data_dir, 20)
    folder = data_dir / "core" / "log"
    with (folder / "data").open("r+b") as data:
        data.seek(400)
        byte = data.read(1)
        data.seek(-1, os.SEEK_CUR)
        data.write(bytes([byte[0] ^ 1]))
    done = await asyncio.to_thread(read, reader, folder)
    assert done.returncode == 1
    assert b"not genuine" in done.stderr

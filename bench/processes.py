"""Child processes of a bench: started, waited for by their first line, ended with it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST_LINE_TIMEOUT_S = 60
BUILD_TIMEOUT_S = 900
# A tool of the module: its version stands in go.mod.
GITLEAKS = "github.com/zricethezav/gitleaks/v8"
MEASURE_TIMEOUT_S = 300


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[str]:
    """A process while the block runs; yields its first line, which says that it is ready."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(FIRST_LINE_TIMEOUT_S):
            line = (await process.stdout.readline()).decode().strip()
        if not line:
            raise RuntimeError(f"{command[0]} ended before it was ready")
        yield line
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command for a module of the bench."""
    return (sys.executable, "-m", f"bench.{name}", *arguments)


async def times(*command: str) -> list[float]:
    """The microseconds that a measuring program prints as a JSON array."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    async with asyncio.timeout(MEASURE_TIMEOUT_S):
        out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    taken: list[float] = json.loads(out)
    return taken


def go_peers() -> Path:
    """Builds the Go peers, outside the checkout; returns their folder."""
    cache = Path(os.environ.get("CHORUS_CACHE") or Path.home() / ".cache" / "chorus")
    folder = cache / "bench-peers"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-o", str(folder), "./gossip", "./etcd", GITLEAKS]
    subprocess.run(command, cwd=HERE / "peers" / "go", check=True, timeout=BUILD_TIMEOUT_S)
    return folder

"""Child processes of a bench: started, waited for by their first line, ended with it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chorus.hub import Hub

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


@asynccontextmanager
async def two_cores() -> AsyncIterator[tuple[str, str]]:
    """Two cores of one network, each in a process of its own as in agents; yields their hubs' sockets."""
    async with running(*module("stand_ins", "core", "")) as far:
        far_hub, address = far.split()
        async with running(*module("stand_ins", "core", address)) as near:
            yield near.split()[0], far_hub


async def peer_of(hub: Hub) -> str:
    """The other core's peer id, once both are connected."""
    async with hub.events() as events:
        while not (peers := (await hub.net_state()).get("peers")):
            await events.get()
    return str(peers[0]["peer"])


async def numbers(*command: str) -> list[float]:
    """The JSON array that a measuring program prints."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        async with asyncio.timeout(MEASURE_TIMEOUT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    said: list[float] = json.loads(out)
    return said


def go_peers() -> Path:
    """Builds the Go peers, outside the checkout; returns their folder."""
    cache = Path(os.environ.get("CHORUS_CACHE") or Path.home() / ".cache" / "chorus")
    folder = cache / "bench-peers"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-o", str(folder), "./gossip", "./etcd", "./dht", GITLEAKS]
    subprocess.run(command, cwd=HERE / "peers" / "go", check=True, timeout=BUILD_TIMEOUT_S)
    return folder


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports

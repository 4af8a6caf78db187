"""The agent's parent in a process of its own, over stand-ins for its programs, as tests see it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

# Generous: other work shares the machine, and nothing here asserts how fast things are.
DEADLINE_S = 60.0
HERE = Path(__file__).parent
PROGRAMS = ("node", "worker")


class RunningAgent:
    """A parent in its own process, seen from outside."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.run_dir = folder / "run"
        self.process = process
        self.log = b""
        assert process.stderr is not None
        self._reader = asyncio.create_task(self._read(process.stderr))

    async def _read(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(65536):
            self.log += data

    def pids(self, program: str) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in (self.run_dir / f"{program}.pids").read_text().split()]
        return []

    def supervisord(self) -> int:
        with contextlib.suppress(OSError):
            return int((self.run_dir / "supervisord.pid").read_text())
        return 0

    async def until(self, what: Callable[[], Any]) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            while not (found := what()):  # noqa: ASYNC110 - files and other processes have no events
                await asyncio.sleep(0.02)
        return found

    async def ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            code = await self.process.wait()
            await self._reader
        return code

    async def stop(self) -> int:
        """Two signals: nobody here has a hub to be asked over, and the second does not wait for one."""
        self.process.terminate()
        await self.until(lambda: b"SIGTERM: stopping" in self.log)
        self.process.terminate()
        return await self.ended()


@contextlib.asynccontextmanager
async def running_agent(short_dir: Path, docker_that_pings: str, **more: str) -> AsyncIterator[RunningAgent]:
    """A parent whose programs are up; a real node among them says so itself, over its hub."""
    running = await started(short_dir, docker_that_pings, **more)
    process = running.process
    stand_ins = [name for name in PROGRAMS if name != "node" or "TEST_REAL_NODE" not in more]
    try:
        await running.until(lambda: process.returncode is not None or all(map(running.pids, stand_ins)))
        assert process.returncode is None, running.log.decode()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.ended()


async def started(short_dir: Path, docker_that_pings: str, **more: str) -> RunningAgent:
    """A parent that may end at once."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(HERE.parents[1] / "python"), os.environ.get("PYTHONPATH")])
        ),
        "CHORUS_LICENSE_ID": "dev-lifetimes",
        "CHORUS_DATA_DIR": str(short_dir / "data"),
        "CHORUS_RUN_DIR": str(short_dir / "run"),
        "CHORUS_P2P_PORT": "0",
        "CHORUS_API_PORT": "0",
        "CHORUS_HEALTH_PORT": "0",
        "CHORUS_API_TOKEN": "a-token-that-nobody-inherits",
        "CHORUS_LOG_LEVEL": "debug",
        "DOCKER_HOST": docker_that_pings,
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "agent_with_stand_ins.py"),
        *PROGRAMS,
        env=environ,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    return RunningAgent(short_dir, process)

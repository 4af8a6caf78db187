"""Agents started by hand: one alone in a terminal, a second that mDNS finds, a third by an address."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import GENEROUS_S, bare_environ
from .test_run import until

pytestmark = pytest.mark.e2e


@dataclass
class Started:
    """An agent that has a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    data_dir: Path

    def description(self) -> dict[str, Any]:
        def look() -> Any:
            assert self.process.poll() is None, self.screen()
            path = self.data_dir / "agent.json"
            return path.exists() and json.loads(path.read_bytes())

        found: dict[str, Any] = until(look)
        return found

    def probe(self, path: str) -> httpx.Response | None:
        url = f"http://127.0.0.1:{self.description()['ports']['health']}{path}"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, timeout=30, trust_env=False)
        return None

    def answers(self, path: str, status: int) -> Any:
        answer = self.probe(path)
        return answer is not None and answer.status_code == status and answer.json()

    def mesh(self) -> tuple[str, int] | None:
        health = self.probe("/health")
        told = health.json().get("coordinator", {}) if health is not None else {}
        return (told["mesh"], told["members"]) if told.get("mesh") else None

    def screen(self) -> str:
        with contextlib.suppress(OSError):
            return os.read(self.terminal, 1 << 20).decode(errors="replace")
        return ""

    def end_by_ctrl_c(self) -> int:
        """The code it ended with. The terminal is read, as a person's is: a full one would hold it up."""
        os.write(self.terminal, b"\x03")
        deadline = time.monotonic() + GENEROUS_S
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, "it does not stop"
            self.screen()
        return code


def start(folder: Path, agent_id: str, license_id: str, **more: str) -> Started:
    environ = bare_environ()
    environ |= {"XDG_STATE_HOME": str(folder), "CHORUS_LICENSE_ID": license_id, "CHORUS_AGENT_ID": agent_id}
    # The ports of the contract may be taken here; any others do.
    environ |= {f"CHORUS_{name}_PORT": "0" for name in ("P2P", "API", "HEALTH")}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_A_TERMINAL],
        env={**environ, **more},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return Started(process, ours, folder / "chorus" / agent_id)


# A shell makes the terminal the session's own, so that its Ctrl-C becomes SIGINT; so does this.
_IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "chorus.agent"])
"""


@pytest.fixture
def started(needs: None) -> Iterator[list[Started]]:
    agents: list[Started] = []
    yield agents
    for agent in agents:
        if agent.process.poll() is None:
            agent.process.terminate()
    for agent in agents:
        try:
            agent.process.wait(GENEROUS_S)
        finally:
            os.close(agent.terminal)


def test_one_alone_then_a_second_by_mdns_and_a_third_by_address(
    short_dir: Path, started: list[Started]
) -> None:
    license_id = f"dev-alone-{os.urandom(4).hex()}"
    first = start(short_dir, "a1", license_id)
    started.append(first)
    until(lambda: first.answers("/healthz", 200))
    # Alone it is not ready, and says so; it has its mesh all the same.
    assert until(lambda: first.answers("/ready", 503))["ready"] is False
    mesh, members = until(first.mesh)
    assert members == 1

    second = start(short_dir, "a2", license_id)
    started.append(second)
    until(lambda: second.mesh() == (mesh, 2))
    until(lambda: first.answers("/ready", 200))

    address = first.description()["multiaddrs"][0]
    third = start(short_dir, "a3", license_id, CHORUS_MDNS_ENABLED="false", CHORUS_BOOTSTRAP_PEERS=address)
    started.append(third)
    for agent in started:
        until(lambda agent=agent: agent.mesh() == (mesh, 3))
        until(lambda agent=agent: agent.answers("/ready", 200))

    for agent in started:
        assert agent.end_by_ctrl_c() == 0
        # Nothing of it is left: the folder can be used again at once.
        assert not Path(f"/proc/{agent.process.pid}/cwd").exists()

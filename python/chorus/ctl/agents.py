"""Starts and ends the agents of a local mesh as processes, and finds out whether they still live."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from chorus.ctl.contexts import AgentEntry
from chorus.ctl.problems import CtlError
from chorus.process.death import die_with_parent_process

LOG_LINES_SHOWN: Final = 15
POLL_S: Final = 0.05
_PORTS: Final = (("CHORUS_P2P_PORT", "p2p"), ("CHORUS_API_PORT", "api"), ("CHORUS_HEALTH_PORT", "health"))


@dataclass(slots=True)
class Started:
    """An agent that was started and may not be ready yet."""

    name: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]
    # What it said of itself last: while it begins anew with a new identity, it says nothing.
    said: dict[str, Any] | None = None

    def check_alive(self) -> None:
        """Raises, with the last words of its log, when it has ended."""
        code = self.process.poll()
        if code is not None:
            raise CtlError(f"{self.name} ended with exit code {code}; its last words:\n{tail(self.log)}")

    def describe(self) -> dict[str, Any] | None:
        """Its `agent.json`, when this run has written it."""
        try:
            content: dict[str, Any] = json.loads((self.folder / "agent.json").read_bytes())
        except (OSError, ValueError):
            return None
        if content.get("pid") != self.process.pid or not content.get("multiaddrs"):
            return None
        self.said = content
        return content

    def entry(self) -> AgentEntry:
        """What the context keeps of it."""
        said = self.describe() or self.said
        assert said is not None
        ports = said["ports"]
        host = said.get("api_host") or "127.0.0.1"
        host = "127.0.0.1" if host == "0.0.0.0" else host
        return AgentEntry(
            agent_id=said["agent_id"],
            api=f"http://{host}:{ports['api']}",
            health=f"http://{host}:{ports['health']}",
            multiaddr=_local_first(said["multiaddrs"]),
            token_file=str(self.folder / "api-token"),
            data_dir=str(self.folder),
            pid=self.process.pid,
        )


def start(name: str, folder: Path, settings: Mapping[str, str], *, detached: bool) -> Started:
    """Starts one agent. Not detached, it ends (gracefully) with this command, however that ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    environ = {**os.environ, **settings, **_ports(folder)}
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            _command(),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            # A Ctrl-C in the terminal is for us; we then ask the agents to stop.
            start_new_session=True,
            preexec_fn=None if detached else partial(die_with_parent_process, signal.SIGTERM),
        )
    return Started(name, folder, log, process)


def _command() -> list[str]:
    beside = Path(sys.executable).with_name("chorus-agent")
    found = str(beside) if beside.exists() else shutil.which("chorus-agent")
    return [found] if found else [sys.executable, "-m", "chorus.agent"]


def _ports(folder: Path) -> dict[str, str]:
    """The ports it had last time where they are free, so that its peers find it; else any."""
    try:
        last = json.loads((folder / "agent.json").read_bytes())["ports"]
    except (OSError, ValueError, KeyError):
        last = {}
    return {variable: str(last[key]) if _free(last.get(key, 0)) else "0" for variable, key in _PORTS}


def _free(port: int) -> bool:
    if not port:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def without_peer(multiaddr: str) -> str:
    """The address alone: who answers there may have a new identity."""
    return multiaddr.partition("/p2p/")[0]


def peer_in(multiaddr: str) -> str:
    """The peer id in an agent's address."""
    return multiaddr.rpartition("/p2p/")[2]


def _local_first(multiaddrs: list[str]) -> str:
    return next((addr for addr in multiaddrs if addr.startswith("/ip4/127.")), multiaddrs[0])


def tail(log: Path) -> str:
    """The last lines of an agent's log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"  (its log cannot be read: {error})"
    return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:]) or "  (nothing)"


def alive(agent: AgentEntry) -> bool:
    """Whether the agent's parent process lives; a pid that is somebody else's now does not count."""
    if agent.pid <= 0:
        return False
    try:
        environ = Path(f"/proc/{agent.pid}/environ").read_bytes()
        state = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and f"CHORUS_DATA_DIR={agent.data_dir}".encode() in environ.split(b"\0")


def signal_all(agents: list[AgentEntry], number: int) -> None:
    """Sends a signal to those that live."""
    for agent in agents:
        if alive(agent):
            try:
                os.kill(agent.pid, number)
            except ProcessLookupError:
                continue


def wait_gone(agents: list[AgentEntry], timeout_s: float) -> list[AgentEntry]:
    """Waits until none lives; returns those that still do."""
    deadline = time.monotonic() + timeout_s
    while left := [agent for agent in agents if alive(agent)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
        _reap()
    return []


def _reap() -> None:
    """Our own children that ended must not stay behind as zombies that look alive to others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

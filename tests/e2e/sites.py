"""Agents started one by one, each at an address of its own, which the agent that replaces it has too.

A site lies on this machine's loopback network. `hosts` has sites in network namespaces, which can be cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import docker
import httpx

from chorus.executor.docker.container import LABEL_PEER
from chorus.hub import Hub

from .conftest import GENEROUS_S, bare_environ
from .test_run import until

T = TypeVar("T")

# The ports of the contract: every site has an address of its own.
P2P_PORT, API_PORT, HEALTH_PORT = 9000, 8080, 8081


class Site:
    """One agent and its folders. The agent is known by its name and address, not by its identity."""

    def __init__(self, agent_id: str, address: str, folder: Path, license_id: str) -> None:
        self.agent_id, self.address, self.license_id = agent_id, address, license_id
        self.data_dir = folder / agent_id
        self.run_dir = folder / f"r-{agent_id}"
        self.log_file = folder / f"{agent_id}.log"
        # Where its API is reached from where `_here` runs.
        self.host = address
        # What its agent runs on; another release has one of its own.
        self.python = sys.executable
        # The identities of agents that were killed here.
        self._killed: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(trust_env=False)

    @property
    def multiaddr(self) -> str:
        """Where other agents reach it."""
        return f"/ip4/{self.address}/tcp/{P2P_PORT}"

    @property
    def peer(self) -> str:
        """The peer id of the started agent, whose API may answer before the parent has written it down."""
        return str(until(self._peer))

    def _peer(self) -> str | None:
        with suppress(FileNotFoundError):
            return str(json.loads((self.data_dir / "agent.json").read_bytes())["peer_id"])
        return None

    def start(self, others: Iterable[Site] = (), **more: str) -> None:
        """Starts the agent, which knows where the others are."""
        environ = bare_environ()
        addresses = [other.multiaddr for other in others if other is not self]
        environ |= {
            "CHORUS_LICENSE_ID": self.license_id,
            "CHORUS_AGENT_ID": self.agent_id,
            "CHORUS_DATA_DIR": str(self.data_dir),
            "CHORUS_RUN_DIR": str(self.run_dir),
            "CHORUS_P2P_HOST": self.address,
            "CHORUS_API_HOST": self.host,
            "CHORUS_MDNS_ENABLED": "false",
            "CHORUS_BOOTSTRAP_PEERS": ",".join(addresses),
            **more,
        }
        command = [self.python, "-m", "chorus.agent"]
        with self.log_file.open("ab") as log:

            def begin() -> subprocess.Popen[bytes]:
                return subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)

            self._process = self._here(begin)

    def stop(self) -> None:
        """Ends the agent as an operator does: what it runs is finished, and its disk stays."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(GENEROUS_S) == 0, self.said("")[-20:]
        self._process = None

    def kill(self) -> None:
        """Ends the agent and all its processes at once, as a failing machine does; its disk stays."""
        if peer := self._peer():
            self._killed.add(peer)
        for pid in [*filter(None, [self._process and self._process.pid]), *self.processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(GENEROUS_S)
        self._process = None
        deadline = time.monotonic() + GENEROUS_S
        while left := self.processes():
            assert time.monotonic() < deadline, f"{self.agent_id}: processes {left} do not end"
            time.sleep(0.02)

    def lose(self) -> None:
        """The machine is gone for good, with its disk and its sandboxes. The address stays."""
        self.kill()
        remove_sandboxes(self._killed)
        shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def remove(self) -> None:
        """Ends the agent and removes its sandboxes."""
        self.kill()
        self._client.close()
        remove_sandboxes(self._killed)

    def processes(self) -> list[int]:
        """The pids of its processes."""
        mark = f"CHORUS_RUN_DIR={self.run_dir}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found

    def ask(self, method: str, path: str, timeout_s: float = 60, **more: Any) -> httpx.Response:
        """One request to the agent's API; raises httpx.TransportError, and OSError before the first start."""

        def once() -> httpx.Response:
            # Another agent at this address has another token.
            token = (self.data_dir / "api-token").read_text().strip()
            url = f"http://{self.host}:{API_PORT}{path}"
            headers = {"Authorization": f"Bearer {token}"}
            return self._client.request(method, url, headers=headers, timeout=timeout_s, **more)

        return self._here(once)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of an answer; None while there is no good one."""
        with suppress(httpx.TransportError, OSError):
            answer = self.ask("GET", path, params=params)
            if answer.status_code == 200:
                return answer.json()
        return None

    def health(self) -> dict[str, Any]:
        """The page of its health; empty while there is none."""

        def once() -> httpx.Response:
            return httpx.get(f"http://{self.host}:{HEALTH_PORT}/health", timeout=30, trust_env=False)

        with suppress(httpx.TransportError):
            return self._here(once).json()  # type: ignore[no-any-return]
        return {}

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`chorusctl` for this agent; raises AssertionError with what it said when it fails."""
        return self._command([sys.executable, "-m", "chorus.ctl", *words], check)

    def follow(self, script: str, **more: str) -> str:
        """What a script says that an operator runs beside this agent, to its first failure."""
        return self._command(["bash", "-euo", "pipefail", "-c", script], True, **more).stdout

    def _command(self, command: list[str], check: bool, **more: str) -> subprocess.CompletedProcess[str]:
        environ = bare_environ() | {
            "CHORUS_API_URL": f"http://{self.host}:{API_PORT}",
            "CHORUS_API_TOKEN_FILE": str(self.data_dir / "api-token"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **more,
        }

        def once() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=GENEROUS_S, check=False
            )

        done = self._here(once)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    async def dial(self, other: Site) -> None:
        """Connects the two agents now, whatever they know of each other."""
        async with await Hub.connect(self.run_dir / "hub.sock", "test", retry_for=GENEROUS_S) as hub:
            await hub.dial(other.multiaddr)

    def said(self, text: str) -> list[str]:
        """The lines of its log with this text, of all its agents."""
        return [line for line in self.log_file.read_text(errors="replace").splitlines() if text in line]

    def _here(self, what: Callable[[], T]) -> T:
        """Runs something where the agent runs."""
        return what()


def remove_sandboxes(peers: Iterable[str]) -> None:
    """Removes the sandboxes of these agents, which are gone: nobody else would."""
    with contextlib.closing(docker.from_env()) as client:
        for peer in peers:
            for found in client.api.containers(all=True, filters={"label": f"{LABEL_PEER}={peer}"}):
                with suppress(docker.errors.APIError):  # it was about to end by itself
                    client.api.remove_container(found["Id"], force=True, v=True)


@contextmanager
def sites(count: int, folder: Path) -> Iterator[list[Site]]:
    """So many sites on loopback, without agents yet, that no other test's agents take for theirs."""
    # All of 127.0.0.0/8 is this machine; the contract's ports on addresses of one's own are free.
    dice = random.SystemRandom()
    network = f"127.{dice.randrange(1, 255)}.{dice.randrange(1, 255)}"
    license_id = f"dev-{dice.randbytes(8).hex()}"
    with ExitStack() as stack:
        made = []
        for number in range(1, count + 1):
            made.append(Site(f"site-{number}", f"{network}.{number}", folder, license_id))
            stack.callback(made[-1].remove)
        yield made

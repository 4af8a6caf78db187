"""Three real agents, brought up by chorusctl; skipped where there is no core or Docker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

# A mesh on a busy machine comes up in well under this; nothing is asserted about it.
GENEROUS_S = 240
IMAGE = "anthonyrawlins/chorus-python-dev:latest"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "e2e: three real agents, a Docker daemon and the sandbox images")


@dataclass(frozen=True)
class Agent:
    """One running agent."""

    agent_id: str
    api: str
    health: str
    multiaddr: str
    token: str
    data_dir: Path
    pid: int

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.ask("GET", path, params=params)

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        headers = {**self._authorization, **(headers or {})}
        return httpx.request(method, self.api + path, headers=headers, timeout=60, trust_env=False, **more)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.ask("POST", path, json=body)

    def client(self) -> httpx.Client:
        """A client that keeps its connection."""
        return httpx.Client(base_url=self.api, headers=self._authorization, timeout=60, trust_env=False)

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def metrics(self) -> dict[str, float]:
        """All series without labels, by name."""
        found = {}
        for line in httpx.get(f"{self.api}/metrics", trust_env=False).text.splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#") and "{" not in name:
                found[name] = float(value)
        return found

    def processes(self) -> dict[str, int]:
        """The pids of its processes by name, supervisord among them."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environ = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"CHORUS_RUN_DIR={self.run_dir}".encode() in environ:
                module = next((word.decode() for word in words if word.startswith(b"chorus.")), "")
                if module.count(".") == 1:
                    found[module.removeprefix("chorus.")] = int(folder.name)
        # supervisord makes the file first and then writes into it.
        with contextlib.suppress(FileNotFoundError, ValueError):
            found["supervisord"] = int((Path(self.run_dir) / "supervisord.pid").read_text())
        return found

    @property
    def run_dir(self) -> str:
        return str(json.loads((self.data_dir / "agent.json").read_text())["run_dir"])


def bare_environ() -> dict[str, str]:
    """This process's environment without any setting of CHORUS but one: its agents have no model."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    return {**kept, "CHORUS_AI_PROVIDER": "none"}


def _heed_sigint() -> None:
    # As from a terminal: what a shell starts in the background inherits that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Mesh:
    """The agents and the command that talks to them."""

    agents: list[Agent]
    environ: dict[str, str]
    name: str = "e2e"
    count: int = 3
    cluster_secret_file: str = ""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "chorus.ctl", words[0], "--context", self.name, *words[1:]]

    def ctl(
        self, *words: str, check: bool = True, timeout_s: float = GENEROUS_S
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(self.command(*words), env=self.environ, capture_output=True, timeout=timeout_s)
        if check and done.returncode:
            raise AssertionError(f"chorusctl {' '.join(words)}: {done.returncode}\n{done.stderr.decode()}")
        return done

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*words),
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_heed_sigint,
        )

    def tasks(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.ctl("tasks", "--json", "--limit", "500").stdout)[
            "items"
        ]
        return items

    def up(self) -> None:
        """Brings the agents up, again if they were there before."""
        said = json.loads(self.ctl("up", "-n", str(self.count), "--detach", "--json").stdout)
        self.cluster_secret_file = said["cluster_secret_file"] or ""
        self.agents = [
            Agent(
                agent["agent_id"],
                agent["api"],
                agent["health"],
                agent["multiaddr"],
                Path(agent["token_file"]).read_text().strip(),
                Path(agent["data_dir"]),
                agent["pid"],
            )
            for agent in said["agents"]
        ]

    def down(self, extra: Sequence[str] = ()) -> None:
        self.ctl("down", *extra, check=False)


@pytest.fixture(scope="session")
def needs() -> None:
    pytest.importorskip("chorus._core", reason="the core is not built: make setup")
    docker = pytest.importorskip("docker")
    try:
        docker.from_env(timeout=10).images.get(IMAGE)
    except Exception as error:
        pytest.skip(f"no Docker with {IMAGE}: {error}")


def brought_up(count: int, **more: str) -> Iterator[Mesh]:
    """A mesh of so many agents with more settings, gone with all its data afterwards."""
    with tempfile.TemporaryDirectory(prefix="chorus-e2e-") as folder:
        environ = bare_environ()
        environ |= {"XDG_STATE_HOME": folder, "CHORUS_SHUTDOWN_TIMEOUT": "30s"}
        # Elections of a second, so that a leader's death does not make a test wait for a quarter of a minute.
        environ |= {"CHORUS_ELECTION_HEARTBEAT": "300ms", "CHORUS_ELECTION_TIMEOUT": "1s"}
        environ |= {"CHORUS_TASK_LEASE": "5s", **more}
        made = Mesh([], environ, count=count)
        try:
            made.up()
            yield made
        finally:
            made.down(["--purge"])


@pytest.fixture(scope="module")
def mesh(needs: None) -> Iterator[Mesh]:
    yield from brought_up(3)

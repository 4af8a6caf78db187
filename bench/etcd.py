"""The peer of committed entries: three members of etcd on loopback."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import Any, Final, Self

import httpx

from bench.processes import free_ports

MEMBERS: Final = 3
# As etcd has it unless told otherwise.
HEARTBEAT_MS: Final = 100
ELECTION_MS: Final = 1000
LEADER_TIMEOUT_S: Final = 60
POLL_S: Final = 0.1


class Etcd:
    """A cluster while the block runs; inside it has a leader. Members are known by their numbers."""

    def __init__(self, heartbeat_ms: int = HEARTBEAT_MS, election_ms: int = ELECTION_MS) -> None:
        self._timing = ["--heartbeat-interval", str(heartbeat_ms), "--election-timeout", str(election_ms)]
        ports = free_ports(2 * MEMBERS)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:MEMBERS]]
        self._peer_urls = [f"http://127.0.0.1:{port}" for port in ports[MEMBERS:]]
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="chorus-bench-etcd-")
        self._http = httpx.AsyncClient(trust_env=False)
        try:
            for number in range(MEMBERS):
                await self.start(number)
            await self.leader()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def start(self, number: int) -> None:
        """Starts a member, anew if it was killed."""
        url, peer_url = self.urls[number], self._peer_urls[number]
        cluster = ",".join(f"m{each}={other}" for each, other in enumerate(self._peer_urls))
        self._processes[number] = await asyncio.create_subprocess_exec(
            "etcd", "--name", f"m{number}", "--data-dir", f"{self._folder}/m{number}",
            "--initial-cluster", cluster,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--listen-client-urls", url, "--advertise-client-urls", url,
            *self._timing, "--log-level", "error", stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, number: int) -> None:
        """Ends a member at once."""
        self._processes[number].kill()

    async def leader(self) -> int:
        """Waits until all members name the same leader."""
        async with asyncio.timeout(LEADER_TIMEOUT_S):
            while True:
                said = [await self._status(url) for url in self.urls]
                if all(said):
                    leaders = {status["leader"] for status in said}
                    members = [status["header"]["member_id"] for status in said]
                    if len(leaders) == 1 and (leader := leaders.pop()) in members:
                        return members.index(leader)
                await asyncio.sleep(POLL_S)

    async def follower(self) -> str:
        """The client URL of a member that follows."""
        return self.urls[(await self.leader() + 1) % MEMBERS]

    async def _status(self, url: str) -> dict[str, Any]:
        try:
            status: dict[str, Any] = (await self._http.post(f"{url}/v3/maintenance/status", json={})).json()
        except (httpx.HTTPError, ValueError):
            return {}
        # A member that knows no leader says none.
        return status if "leader" in status else {}

    async def _end(self) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
            await process.wait()
        await self._http.aclose()
        shutil.rmtree(self._folder, ignore_errors=True)

"""A client of BACKBEAT in this process, and the servers it talks to as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from chorus.config import Settings
from chorus.config.load import load_settings
from chorus.process.logs import bind
from chorus.telemetry.client import Backbeat, Pace
from chorus.telemetry.link import Link
from chorus.testing.nats import Nats

CLUSTER = "tests"
# Nothing is asserted about how long anything takes.
GENEROUS_S = 60.0
# Quick tries, so that a test need not wait for the pauses of a real agent.
QUICK = Pace(again_first_s=0.02, again_max_s=0.1, silence_s=0.5, claim_every_s=0.0)


def settings_for(endpoint: str) -> Settings:
    """Settings with BACKBEAT on."""
    settings = load_settings(
        {
            "CHORUS_LICENSE_ID": "dev-telemetry",
            "CHORUS_AGENT_ID": "agent-1",
            "CHORUS_CLUSTER_ID": CLUSTER,
            "CHORUS_BACKBEAT_ENABLED": "true",
            "CHORUS_BACKBEAT_ENDPOINT": endpoint,
            "HOME": "/nonexistent",
        }
    )
    return replace(settings, peer_id="12D3KooWtelemetry")


async def until(true: Callable[[], Any], what: str) -> None:
    """Waits for something to become true. It is asked in a thread, as it may ask a server in its turn: the
    client's deadlines run in this loop, and on a busy machine it met none of them beside such questions.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GENEROUS_S):
            while not await asyncio.to_thread(true):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert true(), what


@asynccontextmanager
async def running(settings: Settings, link: Link) -> AsyncIterator[Backbeat]:
    """A client at work."""
    backbeat = Backbeat(settings, link, bind(), pace=QUICK)
    work = asyncio.create_task(backbeat.run())
    try:
        yield backbeat
        assert not work.done(), work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


class Server:
    """`chorusctl dev backbeat` as a process that beats on command."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "chorus.ctl", "dev", "backbeat", "--json", "--tempo", "0"]
        command += ["--port", str(self.port), "--cluster", CLUSTER]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.url, self.token = said["url"], said["token"]
        self.port = int(self.url.rpartition(":")[2])
        headers = {"Authorization": f"Bearer {self.token}"}
        self._admin = httpx.Client(base_url=self.url, headers=headers, timeout=GENEROUS_S, trust_env=False)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._admin.close()

    def beat(self) -> None:
        self._admin.post("/admin/beat").raise_for_status()

    def misbehave(self, fault: str, **more: Any) -> None:
        self._admin.post("/admin/fault", json={"fault": fault, **more}).raise_for_status()

    def seen(self, path: str = "") -> list[dict[str, Any]]:
        """What came, all of it fitting."""
        seen = self.report()["seen"]
        assert all(one["fits"] for one in seen), seen
        return [one["body"] for one in seen if one["path"].endswith(path)]

    def report(self) -> dict[str, Any]:
        said: dict[str, Any] = self._admin.get("/admin/seen").json()
        return said


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.kill()


@pytest.fixture
def nats_server() -> Iterator[Nats]:
    with Nats() as started:
        yield started

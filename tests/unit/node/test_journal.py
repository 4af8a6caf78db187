"""What the node writes into the log: the beginning once for each life, peers and leaders within bounds."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from chorus.config import Settings
from chorus.config.load import load_settings
from chorus.config.masked import SecretText
from chorus.hub import HubError
from chorus.node.journal import BURST_ENTRIES, Allowance, Journal, shown
from chorus.process import Process
from chorus.process.logs import Logger
from chorus.testing.fake_hub import FakeHub, FakeMesh
from chorus.wire.log import LOG_TYPES

TOKEN = "a-token-that-nobody-may-read"
SECRET = "a cluster secret that nobody may read"
LICENCE = "dev-0123456789abcdef"
DEADLINE_S = 20.0


class World:
    """A node's journal over the fake hub."""

    def __init__(self, folder: Path, licence: str = "dev-1") -> None:
        environ = {
            "CHORUS_LICENSE_ID": licence,
            "CHORUS_AGENT_ID": "a",
            "CHORUS_CLUSTER_SECRET": SECRET,
            "CHORUS_DATA_DIR": str(folder / "data"),
        }
        self.settings: Settings = replace(
            load_settings(environ), api_token=SecretText(TOKEN), run_dir=folder, license_checks=1, version="1"
        )
        self.mesh = FakeMesh()
        self.hub: FakeHub = self.mesh.hub("a", "node")
        self.now = 0.0
        self.process = Process("node", self.settings, Logger(logging.getLogger("chorus.test")))
        self.process._hub = self.hub
        self.journal = self.made()

    def made(self) -> Journal:
        return Journal(self.process, clock=lambda: self.now)

    @property
    def entries(self) -> list[tuple[str, dict[str, Any]]]:
        return [(entry["type"], entry["data"]) for entry in self.mesh.agent("a").log]

    @property
    def types(self) -> list[str]:
        return [type for type, _ in self.entries]

    async def until(self, count: int) -> None:
        """Returns when the log has so many entries."""
        async with asyncio.timeout(DEADLINE_S), self.hub.log_follow(0) as entries:
            for _ in range(count):
                await entries.get()

    async def run(self, count: int, journal: Journal | None = None) -> None:
        """Runs a journal until the log has so many entries."""
        work = asyncio.create_task((journal or self.journal).run())
        await self.until(count)
        # What it writes next, if it should not, it writes now.
        for _ in range(20):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_life_begins_with_agent_licence_and_settings(world: World) -> None:
    await world.run(3)
    assert world.types == ["agent_started", "license_checked", "configuration"]
    started, licence, configuration = (data for _, data in world.entries)
    assert started == {"boot": world.settings.boot_id, "version": "1", "agent_id": "a"}
    assert (licence["id"], licence["kind"], licence["checks"]) == ("development", "development", 1)
    assert configuration["settings"]["assignment"]["max_tasks"] == 3


async def test_no_entry_holds_the_licence_id(tmp_path: Path) -> None:
    world = World(tmp_path, LICENCE)
    await world.run(3)
    written = orjson.dumps(world.entries).decode()
    assert LICENCE not in written
    assert "development …cdef" in orjson.loads(written)[1][1]["id"]


async def test_secrets_are_no_part_of_the_configuration(world: World) -> None:
    text = orjson.dumps(shown(world.settings)).decode()
    assert TOKEN not in text
    assert SECRET not in text
    assert "cluster_secret" not in text
    assert "api_token" not in text


async def test_a_core_that_comes_back_says_so(world: World) -> None:
    await world.run(3)
    await world.run(4, world.made())
    assert world.types[3:] == ["node_restarted"]


async def test_the_beginning_waits_for_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus.node.journal.RETRY_S", 0.001)
    append, failures = world.hub.log_append, [HubError("the disk is full", code="internal")] * 3

    async def failing(type: str, data: Any) -> int:
        if failures:
            raise failures.pop()
        return await append(type, data)

    monkeypatch.setattr(world.hub, "log_append", failing)
    await world.run(3)
    assert world.types == ["agent_started", "license_checked", "configuration"]
    assert failures == []


async def test_peers_and_leaders_are_noted_once(world: World) -> None:
    world.mesh.agent("b")
    work = asyncio.create_task(world.journal.run())
    # The one that was there before the journal.
    await world.until(4)
    for event in (
        {"kind": "peer_up", "peer": "peer-b"},
        {"kind": "peer_up", "peer": "peer-c"},
        {"kind": "peer_down", "peer": "peer-b"},
        {"kind": "peer_down", "peer": "peer-x"},
        {"kind": "leader", "term": 2, "peer": ""},
        {"kind": "leader", "term": 2, "peer": "peer-c"},
        {"kind": "leader", "term": 2, "peer": "peer-c"},
        {"kind": "leader", "term": 3, "peer": "peer-a"},
        {"kind": "step_down", "term": 3, "reason": "quorum_loss"},
        {"kind": "listening", "addr": "x"},
        {"kind": "role", "role": "follower"},
    ):
        world.mesh.emit(event, "a")
    await world.until(9)
    work.cancel()
    await world.journal.end()
    assert world.entries[3:] == [
        ("peer_up", {"peer": "peer-b"}),
        ("peer_up", {"peer": "peer-c"}),
        ("peer_down", {"peer": "peer-b"}),
        ("leader_changed", {"term": 2, "leader": "peer-c", "self": False, "before": None}),
        ("leader_changed", {"term": 3, "leader": "peer-a", "self": True, "before": "peer-c"}),
        ("leader_stepped_down", {"term": 3, "reason": "quorum_loss"}),
        ("agent_stopped", {"boot": world.settings.boot_id}),
    ]
    assert set(world.types) <= set(LOG_TYPES)


async def test_a_peer_that_comes_and_goes_fills_no_disk(world: World) -> None:
    for n in range(BURST_ENTRIES):
        kind = "peer_up" if n % 2 == 0 else "peer_down"
        for _ in range(3):
            await world.journal.note({"kind": kind, "peer": f"peer-{n // 2}"})
    assert len(world.entries) == BURST_ENTRIES
    for n in range(5):
        await world.journal.note({"kind": "peer_up", "peer": f"more-{n}"})
    assert len(world.entries) == BURST_ENTRIES
    # Two seconds later there is room again, and what was left out is counted, also what the core left out.
    world.now += 2.0
    await world.journal.note({"kind": "peer_up", "peer": "last", "gap": 4})
    assert world.entries[BURST_ENTRIES:] == [
        ("events_skipped", {"count": 9}),
        ("peer_up", {"peer": "last"}),
    ]


def test_an_allowance_is_a_burst_and_a_rate() -> None:
    allowance = Allowance(2, 0.5)
    assert [allowance.take(now) for now in (0, 0, 0, 1, 2, 2, 100, 100, 100)] == [
        True, True, False, False, True, False, True, True, False,
    ]  # fmt: skip
    assert allowance.take(50) is False, "a clock that goes back gives nothing"

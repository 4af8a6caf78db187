"""The parent with a licence of a real KACHING, over stand-ins for its programs: how it starts, lives through
an outage, and ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_parent import DEADLINE_S, RunningAgent, running_agent, started

from chorus.core import Identity
from chorus.hub import Hub
from chorus.testing.kaching import KachingProcess

LINE = "❌ Failed to initialize CHORUS agent: license validation failed: "


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KachingProcess]:
    with KachingProcess(tmp_path_factory.mktemp("kaching")) as running:
        yield running


@pytest.fixture
def server(one_server: KachingProcess, request: pytest.FixtureRequest) -> Iterator[KachingProcess]:
    """A running server that knows the licence of this test."""
    one_server.create(licence_of(request.node.name), lease_ttl_s=1.5)
    yield one_server
    if not one_server.runs:
        one_server.start()


@pytest.fixture
def settings(server: KachingProcess, request: pytest.FixtureRequest) -> dict[str, str]:
    return {
        "CHORUS_LICENSE_ID": licence_of(request.node.name),
        "CHORUS_KACHING_URL": server.url,
        "CHORUS_KACHING_PUBLIC_KEY": server.public_key,
        "TEST_REAL_IDENTITY": "1",
    }


def licence_of(test: str) -> str:
    return f"prod-{hashlib.sha256(test.encode()).hexdigest()[:16]}"


def status(running: RunningAgent) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((running.run_dir / "license.json").read_text())
    return said


async def refused(short_dir: Path, docker: str, environ: dict[str, str]) -> str:
    running = await started(short_dir, docker, **environ)
    assert await running.ended() == 1
    return running.log.decode()


async def test_a_licence_gives_the_cluster_and_a_clean_stop_gives_the_seat_back(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    async with running_agent(short_dir, docker_that_pings, **settings) as running:
        handed_over = json.loads((running.run_dir / "settings.json").read_text())
        assert (handed_over["cluster_id"], handed_over["license_kind"]) == ("c1", "production")
        assert len(bytes.fromhex(handed_over["cluster_secret"])) == 64
        peer = Identity.load_or_create(short_dir / "data" / "identity.key").peer_id
        assert [lease["agent_id"] for lease in server.leases() if lease["peer_id"] == peer] == [
            f"agent-{peer[-8:]}"
        ]
        # Renewed beyond its first end.
        await running.until(lambda: status(running)["checks"] >= 4)
        assert status(running)["state"] == "valid"
        assert await running.stop() == 0
    assert peer not in {lease["peer_id"] for lease in server.leases()}
    assert settings["CHORUS_LICENSE_ID"].encode() not in running.log


async def test_a_suspension_drains_the_agent_and_ends_it_with_its_line(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    async with running_agent(
        short_dir, docker_that_pings, **settings, CHORUS_SHUTDOWN_TIMEOUT="1s"
    ) as running:
        server.rule("suspend", settings["CHORUS_LICENSE_ID"])
        assert await running.ended() == 1
    last = running.log.decode().splitlines()[-1]
    assert last.startswith(f"{LINE}the licence is suspended: ")
    said = await refused(short_dir, docker_that_pings, settings)
    assert said.startswith(f"{LINE}the licence is suspended: ")
    assert len(said.splitlines()) == 1


@pytest.mark.heavy
async def test_back_within_the_grace_nothing_is_noticed_but_the_detail(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    async with running_agent(short_dir, docker_that_pings, **settings) as running:
        pids = [running.supervisord(), *running.pids("node"), *running.pids("worker")]
        server.stop()
        await running.until(lambda: status(running)["state"] == "grace")
        # It may have died in the middle of an answer.
        assert status(running)["reason"] in ("unreachable", "garbage")
        server.start()
        await running.until(lambda: status(running)["state"] == "valid")
        assert [running.supervisord(), *running.pids("node"), *running.pids("worker")] == pids
        assert await running.stop() == 0


async def test_each_change_is_in_the_log(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    """In the log of a real node, up to the last word before the agent ends."""
    entries: list[dict[str, Any]] = []

    async def follow(hub: Hub) -> None:
        async with hub.log_follow(0, type="license_changed") as feed:
            async for entry in feed:
                entries.append(entry["data"])

    more = {"TEST_REAL_NODE": "1", "CHORUS_MDNS_ENABLED": "false", "CHORUS_SHUTDOWN_TIMEOUT": "1s"}
    async with running_agent(short_dir, docker_that_pings, **settings, **more) as running:
        hub = await Hub.connect(running.run_dir / "hub.sock", "test", retry_for=DEADLINE_S)
        following = asyncio.create_task(follow(hub))
        server.misbehave("lying", claims={"max_agents": 3})
        await running.until(lambda: entries)
        assert status(running)["limits"]["max_agents"] == 3
        server.misbehave("none")
        await running.until(lambda: len(entries) == 2)
        server.misbehave("garbage")
        await running.until(lambda: len(entries) == 3)
        server.misbehave("none")
        await running.until(lambda: len(entries) == 4)
        server.rule("suspend", settings["CHORUS_LICENSE_ID"])
        assert await running.ended() == 1
        await hub.close()
        await asyncio.gather(following, return_exceptions=True)
    assert [(entry["before"], entry["state"], entry["reason"], entry["changed"]) for entry in entries] == [
        ("valid", "valid", "", ["max_agents"]),
        ("valid", "valid", "", ["max_agents"]),
        ("valid", "grace", "garbage", []),
        ("grace", "valid", "", []),
        ("valid", "suspended", "suspended", []),
    ]
    assert [entry["limits"]["max_agents"] for entry in entries] == [3, 10, 10, 10, 10]
    assert entries[2]["until"] is not None
    assert "suspended" in entries[4]["detail"]


async def test_away_for_longer_than_the_grace_ends_the_agent(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    more = {"CHORUS_LICENSE_GRACE": "3s", "CHORUS_SHUTDOWN_TIMEOUT": "1s"}
    async with running_agent(short_dir, docker_that_pings, **settings, **more) as running:
        server.stop()
        assert await running.ended() == 1
    last = running.log.decode().splitlines()[-1]
    assert last.startswith(LINE)
    assert "CHORUS_LICENSE_GRACE" in last


async def test_a_killed_agent_starts_again_by_its_last_token_while_the_server_is_away(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    async with running_agent(short_dir, docker_that_pings, **settings) as running:
        running.process.kill()
    server.stop()
    for file in (short_dir / "run").glob("*.pids"):
        file.unlink()
    async with running_agent(short_dir, docker_that_pings, **settings) as running:
        assert status(running)["state"] == "grace"
        assert b"runs on its last token until" in running.log
        assert await running.stop() == 0


async def test_no_token_no_network(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    server.stop()
    said = await refused(short_dir, docker_that_pings, settings)
    assert said.startswith(f"{LINE}KACHING is not reached ")
    assert not (short_dir / "data" / "core").exists()
    assert not (short_dir / "run" / "settings.json").exists()


async def test_a_start_that_goes_no_further_keeps_no_seat(
    short_dir: Path, server: KachingProcess, settings: dict[str, str]
) -> None:
    said = await refused(short_dir, f"unix://{short_dir}/none.sock", settings)
    assert "failed to create Docker client" in said
    peer = Identity.load_or_create(short_dir / "data" / "identity.key").peer_id
    assert peer not in {lease["peer_id"] for lease in server.leases()}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"CHORUS_KACHING_PUBLIC_KEY": ""},
            "license validation failed: CHORUS_KACHING_PUBLIC_KEY is not set",
        ),
        ({"CHORUS_KACHING_PUBLIC_KEY": "5e" * 32}, "license validation failed: a signature does not fit"),
        ({"CHORUS_KACHING_PUBLIC_KEY": "x"}, "CHORUS_KACHING_PUBLIC_KEY: expected an Ed25519 public key"),
        ({"CHORUS_KACHING_URL": "http://kaching.example"}, "CHORUS_KACHING_URL: expected an https URL"),
        ({"CHORUS_CLUSTER_ID": "c2"}, "license validation failed: the licence is of another cluster"),
        ({"CHORUS_CLUSTER_SECRET": "x" * 24}, "license validation failed: the cluster secret is not the"),
        ({"CHORUS_LICENSE_ID": "prod-other"}, "license validation failed: KACHING does not know the licence"),
    ],
)
async def test_a_wrong_setting_is_one_line(
    short_dir: Path,
    docker_that_pings: str,
    server: KachingProcess,
    settings: dict[str, str],
    changed: dict[str, str],
    told: str,
) -> None:
    said = await refused(short_dir, docker_that_pings, {**settings, **changed})
    [line] = said.splitlines()
    assert line.startswith(f"❌ Failed to initialize CHORUS agent: {told}")


async def test_without_any_secret_all_three_sources_are_named(
    short_dir: Path, docker_that_pings: str, server: KachingProcess, settings: dict[str, str]
) -> None:
    server.create("keeps-its-secret", gives_secret=False)
    environ = {**settings, "CHORUS_LICENSE_ID": "keeps-its-secret"}
    [line] = (await refused(short_dir, docker_that_pings, environ)).splitlines()
    assert all(source in line for source in ("CHORUS_CLUSTER_SECRET", "KACHING", "dev-"))

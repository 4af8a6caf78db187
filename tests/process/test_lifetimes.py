"""The parent with real signals, over stand-ins for its programs: who dies with whom, who comes back, how it
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running_parent import PROGRAMS, RunningAgent, running_agent

from chorus.process.departure import Departure, Kind, write_departure


@pytest.fixture
async def agent(short_dir: Path, docker_that_pings: str) -> AsyncIterator[RunningAgent]:
    async with running_agent(short_dir, docker_that_pings) as running:
        yield running


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_clean_stop(agent: RunningAgent) -> None:
    supervisord = agent.supervisord()
    everybody = [supervisord, *agent.pids("node"), *agent.pids("worker")]
    assert await agent.stop() == 0
    assert not any(lives(pid) for pid in everybody)
    assert (agent.run_dir / "order").read_text().split() == ["worker", "node"]
    assert not (agent.run_dir / "settings.json").exists()
    assert all(json.loads(line) for line in agent.log.splitlines())


async def test_only_the_parent_is_called_chorus_agent(agent: RunningAgent) -> None:
    def names(pid: int) -> tuple[str, str]:
        argv0 = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        return argv0, Path(f"/proc/{pid}/comm").read_text().strip()

    assert names(agent.process.pid) == ("chorus-agent", "chorus-agent")
    for pid in (agent.supervisord(), *agent.pids("node"), *agent.pids("worker")):
        assert "chorus-agent" not in names(pid)
    if pidof := shutil.which("pidof"):
        asked = await asyncio.create_subprocess_exec(pidof, "chorus-agent", stdout=asyncio.subprocess.PIPE)
        out, _ = await asked.communicate()
        found = {int(pid) for pid in out.split()}
        assert agent.process.pid in found
        assert not found & {agent.supervisord(), *agent.pids("node"), *agent.pids("worker")}


async def test_supervisord_has_a_session_of_its_own(agent: RunningAgent) -> None:
    assert os.getsid(agent.supervisord()) == agent.supervisord()
    assert os.getsid(agent.process.pid) == agent.process.pid


async def test_nothing_outlives_a_killed_parent(agent: RunningAgent) -> None:
    everybody = [agent.supervisord(), *agent.pids("node"), *agent.pids("worker")]
    assert all(lives(pid) for pid in everybody)
    agent.process.kill()
    await agent.until(lambda: not any(lives(pid) for pid in everybody))


async def test_a_killed_program_comes_back_and_is_counted(agent: RunningAgent) -> None:
    [first] = agent.pids("worker")
    # Only one that has run for a while is started again at once.
    await agent.until(lambda: agent.log.count(b"entered RUNNING state") >= 3)
    os.kill(first, signal.SIGKILL)
    await agent.until(lambda: len(agent.pids("worker")) == 2)
    crashes = await agent.until(lambda: _json(agent.run_dir / "crashes.json"))
    assert crashes["worker"]["count"] == 1
    assert "node" not in crashes
    assert agent.process.returncode is None


@pytest.mark.parametrize("hang", [signal.SIGSTOP, signal.SIGUSR1])
async def test_a_program_that_does_not_answer_is_restarted_and_counted(
    short_dir: Path, docker_that_pings: str, hang: signal.Signals
) -> None:
    """Stopped as a whole, or with an event loop that is blocked."""
    async with running_agent(short_dir, docker_that_pings, TEST_PATIENCE_S="5") as agent:
        [hung] = agent.pids("worker")
        os.kill(hung, hang)
        await agent.until(lambda: len(agent.pids("worker")) == 2)
        assert not lives(hung)
        crashes = await agent.until(lambda: _json(agent.run_dir / "crashes.json"))
        assert crashes["worker"]["unresponsive"] == crashes["worker"]["count"] == 1
        assert (agent.run_dir / "after_hang").read_text() == "worker\n"
        assert b"worker lives and does not answer" in agent.log
        assert "node" not in crashes
        assert lives(agent.pids("node")[0])


async def test_a_program_that_never_answers_is_restarted(short_dir: Path, docker_that_pings: str) -> None:
    async with running_agent(short_dir, docker_that_pings, TEST_PATIENCE_S="5") as agent:
        (agent.run_dir / "mute.worker").touch()
        os.kill(agent.pids("worker")[0], signal.SIGKILL)
        await agent.until(lambda: len(agent.pids("worker")) >= 3)
        assert _json(agent.run_dir / "crashes.json")["worker"]["unresponsive"] >= 1


async def test_a_supervisord_that_does_not_answer_is_started_anew(
    short_dir: Path, docker_that_pings: str
) -> None:
    async with running_agent(short_dir, docker_that_pings, TEST_PATIENCE_S="5") as agent:
        hung = agent.supervisord()
        os.kill(hung, signal.SIGSTOP)
        await agent.until(lambda: all(len(agent.pids(name)) == 2 for name in PROGRAMS))
        assert not lives(hung)
        assert _json(agent.run_dir / "crashes.json")["supervisord"]["unresponsive"] == 1


async def test_a_suspended_agent_goes_on_as_it_was(short_dir: Path, docker_that_pings: str) -> None:
    """All of it stopped for longer than its patience, parent first and programs last."""
    async with running_agent(short_dir, docker_that_pings, TEST_PATIENCE_S="5") as agent:
        everybody = [agent.process.pid, agent.supervisord(), *agent.pids("node"), *agent.pids("worker")]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(8)  # nothing can happen meanwhile that could be waited for
        for pid in reversed(everybody):
            os.kill(pid, signal.SIGCONT)
        agent.process.send_signal(signal.SIGHUP)
        await agent.until(lambda: b"ASSIGN_URL" in agent.log)
        assert b"does not answer" not in agent.log


async def test_a_killed_supervisord_is_started_anew(agent: RunningAgent) -> None:
    old = [agent.supervisord(), *agent.pids("node"), *agent.pids("worker")]
    os.kill(old[0], signal.SIGKILL)
    await agent.until(lambda: all(len(agent.pids(name)) == 2 for name in PROGRAMS))
    assert not any(lives(pid) for pid in old)
    assert agent.supervisord() != old[0]
    assert not (agent.run_dir / "alive.0").exists()
    assert await agent.stop() == 0


async def test_a_program_that_fails_again_and_again_is_never_left_dead(agent: RunningAgent) -> None:
    marker = agent.run_dir / "fail.worker"
    marker.touch()
    os.kill(agent.pids("worker")[0], signal.SIGKILL)

    def given_up() -> bool:
        return bool(_json(agent.run_dir / "crashes.json").get("worker", {}).get("state") == "fatal")

    await agent.until(given_up)
    await agent.until(lambda: b"worker fails again and again" in agent.log)
    marker.unlink()
    await agent.until(lambda: len(agent.pids("worker")) == 2)
    await agent.until(lambda: _json(agent.run_dir / "crashes.json")["worker"]["state"] == "running")


async def test_processes_inherit_no_secrets(agent: RunningAgent) -> None:
    for pid in (agent.supervisord(), *agent.pids("node")):
        assert b"nobody-inherits" not in _environ(pid)


async def test_a_hangup_is_answered_and_nothing_restarts(agent: RunningAgent) -> None:
    agent.process.send_signal(signal.SIGHUP)
    await agent.until(lambda: b"ASSIGN_URL" in agent.log)
    assert len(agent.pids("node")) == 1
    assert agent.process.returncode is None


async def test_orphans_are_reaped(agent: RunningAgent) -> None:
    old = agent.supervisord()
    os.kill(old, signal.SIGKILL)
    await agent.until(lambda: all(len(agent.pids(name)) == 2 for name in PROGRAMS))

    def zombies() -> list[str]:
        return [stat for stat in _stats() if re.search(rf"\) Z {agent.process.pid} ", stat)]

    await agent.until(lambda: not zombies())


def _environ(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def _stats() -> list[str]:
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            found.append((path / "stat").read_text(errors="replace"))
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content


@pytest.mark.parametrize("kind", ["removed", "merge"])
async def test_an_agent_that_leaves_its_mesh_begins_anew_on_the_same_ports(
    agent: RunningAgent, kind: Kind
) -> None:
    def ports() -> list[int]:
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((agent.run_dir / "settings.json").read_bytes())
            return [said[name] for name in ("p2p_port", "api_port", "health_port")]
        return []

    data = agent.run_dir.parent / "data"
    before = ports()
    everybody = agent.pids("node") + agent.pids("worker")
    write_departure(data / "departure.json", Departure(kind=kind, mesh="mesh-1", why="a test wants it"))
    await agent.until(lambda: all(len(agent.pids(name)) > 1 for name in PROGRAMS))
    assert not any(map(lives, everybody))
    assert not (data / "departure.json").exists()
    assert ports() == before
    told = [json.loads(line) for line in agent.log.splitlines()]
    assert any(line["event"] == "leaving the mesh, and beginning anew" for line in told), told
    assert any("has left mesh mesh-1: a test wants it" in line["event"] for line in told), told
    assert await agent.stop() == 0


async def test_an_agent_that_is_told_to_stop_while_it_leaves_does_so_at_its_next_start(
    agent: RunningAgent,
) -> None:
    data = agent.run_dir.parent / "data"
    write_departure(data / "departure.json", Departure(kind="removed", mesh="mesh-1", why="a test wants it"))
    await agent.until(lambda: b"beginning anew" in agent.log)
    agent.process.terminate()
    assert await agent.ended() == 0
    assert (data / "departure.json").exists()

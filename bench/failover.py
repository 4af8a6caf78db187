"""Bench of a leader's end: how long until an entry is committed again, beside etcd with the same timeout."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import httpx

from bench.agents import Agent, ask, hub_socket, in_state, propose
from bench.etcd import MEMBERS, Etcd
from bench.figures import Comparison, figures
from bench.usage import tree
from chorus.ctl import agents as local_agents
from chorus.ctl.agents import Started, without_peer
from chorus.hub import Hub, HubError

# Election timeout and both heartbeats in milliseconds: three of ours at most fit into a timeout, five of
# etcd's; 300 and 100 are the least that CHORUS_ELECTION_TIMEOUT and CHORUS_ELECTION_HEARTBEAT take.
TIMINGS: Final = ((300, 100, 60), (1000, 200, 200))
# An entry may be committed so long after the kill at most: with 300 ms in a second.
WANTED_MS: Final = {300: 1000, 1000: 2000}
AGENTS: Final = 3
KILLS: Final = 5
# One that was proposed to the old leader may wait for long; the next one need not.
PROPOSE_EVERY_S: Final = 0.01
COMMITTED_WITHIN_S: Final = 60.0
READY_WITHIN_S: Final = 120.0
STOPPED_WITHIN_S: Final = 60.0
POLL_S: Final = 0.1


async def failover() -> list[Comparison]:
    """From the kill of the leader to the first entry that was proposed after it and is committed.

    Ours is the end of a whole agent by SIGKILL, and an entry through the hub of another one, applied to its
    table; etcd's that of a member, and a put through the HTTP gateway of another one.
    """
    return [await _at(*timing) for timing in TIMINGS]


async def _at(timeout_ms: int, heartbeat_ms: int, etcd_heartbeat_ms: int) -> Comparison:
    ours, peer = list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        async with Etcd(etcd_heartbeat_ms, timeout_ms) as cluster:
            with _Mesh(Path(folder), timeout_ms, heartbeat_ms).running() as mesh:
                for _ in range(KILLS):
                    ours.append(await mesh.leader_dies())
                    peer.append(await _member_dies(cluster))
    wanted_ms = WANTED_MS[timeout_ms]
    theirs = figures(f"etcd, heartbeat {etcd_heartbeat_ms} ms", peer)
    return Comparison(
        f"kill of the leader to the next entry, timeout {timeout_ms} ms",
        figures(f"chorus, heartbeat {heartbeat_ms} ms", ours),
        theirs,
        round(wanted_ms * 1000 / theirs.p50, 2),
        f"the target is {wanted_ms} ms, here as a ratio",
    )


async def _until_committed(kill: Callable[[], None], once: Callable[[], Awaitable[object]]) -> float:
    """Microseconds from a kill until the first of what is proposed from then on is committed."""
    committed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def proposal() -> None:
        # A refusal, as long as there is no leader.
        with contextlib.suppress(HubError, httpx.HTTPError):
            await once()
            if not committed.done():
                committed.set_result(time.perf_counter())

    began = time.perf_counter()
    kill()
    proposals = list[asyncio.Task[None]]()
    try:
        async with asyncio.timeout(COMMITTED_WITHIN_S):
            while not committed.done():
                proposals.append(asyncio.create_task(proposal()))
                await asyncio.wait((committed,), timeout=PROPOSE_EVERY_S)
    finally:
        for one in proposals:
            one.cancel()
        await asyncio.gather(*proposals, return_exceptions=True)
    return (committed.result() - began) * 1e6


async def _member_dies(cluster: Etcd) -> float:
    leader = await cluster.leader()
    url = cluster.urls[(leader + 1) % MEMBERS]
    body = {"key": base64.b64encode(b"bench").decode(), "value": base64.b64encode(b"x" * 256).decode()}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=COMMITTED_WITHIN_S) as http:

        async def put() -> None:
            (await http.post(f"{url}/v3/kv/put", json=body)).raise_for_status()

        # The connection is there already, as that to the hub is.
        await put()
        taken = await _until_committed(lambda: cluster.kill(leader), put)
    await cluster.start(leader)
    await cluster.leader()
    return taken


class _Mesh:
    """Three agents that are started one by one, and again when they were killed."""

    def __init__(self, folder: Path, timeout_ms: int, heartbeat_ms: int) -> None:
        self._folder = folder
        self._settings = {
            "CHORUS_LICENSE_ID": f"dev-bench-{os.urandom(8).hex()}",
            "CHORUS_LICENSE_ID_FILE": "",
            "CHORUS_AI_PROVIDER": "none",
            "CHORUS_ELECTION_TIMEOUT": f"{timeout_ms}ms",
            "CHORUS_ELECTION_HEARTBEAT": f"{heartbeat_ms}ms",
            # No containers come and go with the agents.
            "CHORUS_SANDBOX_WARM": "0",
        }
        self._started: dict[str, Started] = {}

    @contextmanager
    def running(self) -> Iterator[_Mesh]:
        """The mesh while the block runs."""
        try:
            for number in range(1, AGENTS + 1):
                self._start(f"agent-{number}")
                self._wait(f"agent-{number} to listen", lambda: all(map(Started.describe, self._all())))
            self._wait("a complete mesh", self._complete)
            yield self
        finally:
            for one in self._all():
                one.process.terminate()
            for one in self._all():
                self._gone(one)

    async def leader_dies(self) -> float:
        """Kills the leader's agent, and starts it again; microseconds to the next entry."""
        agents = self._agents()
        leader = in_state(agents, "leader")
        survivor = next(agent for agent in agents if agent is not leader)
        async with await Hub.connect(hub_socket(survivor), "bench") as hub:
            await propose(hub)
            pids = list(tree(leader["pid"]))
            taken = await _until_committed(lambda: _kill(pids), lambda: propose(hub))
        self._started[leader["agent_id"]].process.wait(STOPPED_WITHIN_S)
        self._start(leader["agent_id"])
        self._wait("a complete mesh", self._complete)
        return taken

    def _all(self) -> list[Started]:
        return list(self._started.values())

    def _agents(self) -> list[Agent]:
        return [asdict(one.entry()) for one in self._all()]

    def _start(self, name: str) -> None:
        others = [without_peer(one.entry().multiaddr) for one in self._all() if one.name != name]
        settings = {
            **self._settings,
            "CHORUS_AGENT_ID": name,
            "CHORUS_DATA_DIR": str(self._folder / name),
            "CHORUS_BOOTSTRAP_PEERS": ",".join(others),
        }
        if not self._started:
            # There is nobody to look for: it founds the mesh that the others join.
            settings["CHORUS_ELECTION_JOIN_WAIT"] = "0s"
        self._started[name] = local_agents.start(name, self._folder / name, settings, detached=False)

    def _complete(self) -> bool:
        """Whether every agent is ready, and all vote for one leader."""
        agents = []
        for one in self._all():
            if one.describe() is None:
                return False
            agents.append(asdict(one.entry()))
        try:
            for agent in agents:
                httpx.get(f"{agent['health']}/ready", timeout=10, trust_env=False).raise_for_status()
                said = ask(agent, "/api/v1/election")
                voters = [member for member in said["members"] if member["voter"]]
                if said["leader_peer"] is None or len(voters) < AGENTS:
                    return False
        except (httpx.HTTPError, OSError):
            return False
        return True

    def _wait(self, what: str, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not done():
            for one in self._all():
                one.check_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} was not there within {READY_WITHIN_S:g} s")
            time.sleep(POLL_S)

    def _gone(self, one: Started) -> None:
        try:
            one.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            if one.said is not None:
                _kill(list(tree(one.entry().pid)))
            one.process.kill()
            one.process.wait()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

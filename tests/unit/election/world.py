"""Election processes of several agents over the fake hub."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chorus.config import Assignment, Settings
from chorus.config.masked import SecretData
from chorus.config.secret import derive_join_key
from chorus.election.proof import Handshake
from chorus.election.service import Election
from chorus.hub import HubInvalid, Request
from chorus.process import Process
from chorus.process.logs import Logger
from chorus.testing.fake_hub import FakeHub, FakeMesh

DEADLINE_S = 30.0
SECRET = b"a cluster secret of 32 bytes ..."
KEY = derive_join_key(SECRET)


def process(folder: Path, name: str, peer_id: str, **settings: Any) -> Process:
    given = {
        "agent_id": name, "peer_id": peer_id, "version": "0", "data_dir": folder / name,
        "run_dir": folder / name, "assignment": Assignment(max_tasks=2),
        "task_lease_s": 30.0, "election_timeout_s": 15.0, "heartbeat_s": 0.05,
        "voters": 5, "join_wait_s": 0.3,
        "member_absence_s": 600.0, "rejoin": False, "leaderless": "run", "license_kind": "development",
        "backbeat_enabled": False,
        "cluster_secret": SecretData(SECRET), **settings,
    }  # fmt: skip
    # What elections read of them; all else stays unsaid.
    said = object.__new__(Settings)
    vars(said).update(given)
    return Process("election", said, Logger(logging.getLogger("chorus.test")))


class World:
    """Agents' election processes in one fake world."""

    def __init__(self, folder: Path) -> None:
        self.mesh = FakeMesh()
        self.folder = folder
        self.elections: dict[str, Election] = {}
        self.running: list[asyncio.Task[None]] = []

    def start(self, name: str, **settings: Any) -> Election:
        hub = self.mesh.hub(name, "election")
        election = Election(process(self.folder, name, hub.peer_id, **settings), hub)
        self.elections[name] = election
        self.running.append(asyncio.create_task(election.run()))
        return election

    async def call(self, name: str, method: str, **head: Any) -> dict[str, Any]:
        hub = self.mesh.hub(name, "api")
        return (await hub.call_service("election", method, head, timeout=DEADLINE_S)).head

    @property
    def members(self) -> list[str]:
        return sorted(agent.agent_id for agent in self.mesh.agents.values() if agent.raft_id)

    @property
    def voters(self) -> list[str]:
        return sorted(agent.agent_id for agent in self.mesh.agents.values() if agent.voter)

    async def until(self, true: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not true():
                    for task in self.running:
                        if task.done():
                            await task
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"it did not come to that: {what}") from None


async def foreign(
    w: World, name: str, mesh: str | None, *, key: bytes = KEY, removed: bool = False, **info: Any
) -> FakeHub:
    """A stand-in for an agent in another mesh, as the fake world has one alone, or for a member of this one.

    It says of everybody whether it was `removed`; `info` is what it says of its mesh besides the id.
    """
    hub = w.mesh.hub(name, "election")

    async def serve(request: Request) -> dict[str, Any]:
        if request.method == "standing":
            shown = Handshake(mesh or "", hub.peer_id, str(request.peer), str(request.head["nonce"]))
            proof = shown.of_standing(key, request.head["raft_id"], removed)
            return {"mesh": mesh, "removed": removed, "proof": proof}
        if request.method == "info":
            return {"mesh": mesh, **info}
        raise HubInvalid("the stand-in does not know this")

    await hub.offer("mesh", serve, peers=True)
    # As the network says of each connection.
    w.mesh.emit({"kind": "peer_up", "peer": hub.peer_id})
    return hub


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    made = World(folder)
    try:
        yield made
    finally:
        for task in made.running:
            task.cancel()
        await asyncio.gather(*made.running, return_exceptions=True)

"""An agent leaves a mesh whose log a real core has written: all of it comes along."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chorus.agent.departure import depart_if_asked
from chorus.agent.identity import load_peer_id
from chorus.config import MeshSettings, Paths
from chorus.process.departure import Departure, Kind, write_departure
from chorus.process.membership import why_lost
from chorus.table.carried import read_header, read_line
from chorus.wire.ids import new_id

from .conftest import PATIENCE_S, StartNode

SETTINGS = MeshSettings(voters=3, heartbeat_ms=100, election_timeout_ms=400)


@pytest.mark.parametrize("kind", ["merge", "recover"])
async def test_a_log_that_no_table_has_applied_comes_along(
    start_node: StartNode, data_dir: Path, kind: Kind
) -> None:
    paths = Paths(data_dir, data_dir / "run")
    task_id = new_id()
    async with asyncio.timeout(PATIENCE_S):
        node = await start_node(data_dir=data_dir)
        mesh = await node.hub.raft_found(SETTINGS, {"agent_id": node.agent_id})
        submission = {
            "task_id": task_id,
            "task": {"title": "t", "commands": ["true"]},
            "submitter": node.peer_id,
            "vouched_by": node.peer_id,
            "submitted_by": "",
        }
        await node.hub.propose("submit", submission)
        peer = node.peer_id
        await node.close()
    write_departure(paths.departure, Departure(kind=kind, mesh=mesh, why="a test wants it"))
    depart_if_asked(paths, load_peer_id, MeshSettings())
    header, *lines = paths.carried.read_bytes().splitlines()
    assert (read_header(header).origin, read_header(header).recovers) == (mesh, kind == "recover")
    assert [read_line(line).body.get("task_id") for line in lines][-1] == task_id
    assert why_lost(paths, load_peer_id) == ""
    async with asyncio.timeout(PATIENCE_S):
        again = await start_node(data_dir=data_dir)
        assert again.peer_id == peer
        assert (await again.hub.raft_status()).mesh is None
        assert await again.hub.raft_found(SETTINGS, {"agent_id": again.agent_id}) != mesh

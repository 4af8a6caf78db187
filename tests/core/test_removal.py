"""Members that go for good, and logs at rest, as Python sees them: real cores on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from chorus.config import MeshSettings
from chorus.core import CoreError, Node, read_log, read_vote_file
from chorus.hub import HubError, HubNotFound, HubRefused
from chorus.hub.types import RaftStatus

from .conftest import PATIENCE_S, StartNode, connected

SETTINGS = MeshSettings(heartbeat_ms=100, election_timeout_ms=400)


async def admit(leader: Node, joiner: Node, request: str) -> int:
    """Makes `joiner` a member of the leader's mesh; returns its raft id."""
    status = await leader.hub.raft_status()
    assert status.mesh is not None
    added = await leader.hub.raft_add(joiner.peer_id, {"agent_id": joiner.agent_id, "request": request})
    members = [(member.raft_id, member.peer) for member in status.members]
    await joiner.hub.raft_adopt(status.mesh, added.raft_id, added.founding, members)
    return added.raft_id


async def told(node: Node) -> RaftStatus:
    """The status of a member once its own log says that it was removed."""
    async with node.events() as events:
        while not (status := await node.hub.raft_status()).removed:
            await events.get()
    return status


async def test_a_member_is_removed_and_joins_anew(start_node: StartNode, data_dir: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        leader = await start_node()
        gone = await start_node([leader], data_dir=data_dir)
        await connected(leader, gone)
        mesh = await leader.hub.raft_found(SETTINGS, {"agent_id": leader.agent_id})
        first = await admit(leader, gone, "first")
        with pytest.raises(HubNotFound):
            await leader.hub.raft_remove("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5", "who?")
        with pytest.raises(HubRefused):
            await leader.hub.raft_remove(leader.peer_id, "itself")
        # The leader sends it entries as they come: it hears of its removal. One that is away does not.
        for text in ("once", "twice"):
            proposed = await leader.hub.propose("news", {"text": text})
            async with gone.hub.follow(proposed.index) as entries:
                assert (await entries.get()).id == proposed.id
        index = await leader.hub.raft_remove(gone.peer_id, "it was away")
        assert [member.peer for member in (await leader.hub.raft_status()).members] == [leader.peer_id]
        async with leader.hub.follow(index) as entries:
            entry = await entries.get()
        body = {"peer": gone.peer_id, "raft_id": first, "reason": "it was away"}
        assert (entry.type, entry.author, entry.body) == ("removal", leader.peer_id, body)
        status = await told(gone)
        assert (status.mesh, status.role, status.members) == (None, "none", ())
        assert "it was away" in status.removed
        with pytest.raises(HubError) as refused:
            await gone.hub.raft_found(SETTINGS, {"agent_id": gone.agent_id})
        assert "removed" in str(refused.value)
        await gone.close()

        vote_file = data_dir / "core" / "raft.redb"
        said = read_vote_file(vote_file)
        assert said is not None
        assert "it was away" in orjson.loads(said)["removed"]
        vote_file.unlink()
        back = await start_node([leader], data_dir=data_dir)
        await connected(leader, back)
        assert await admit(leader, back, "second") > index
        await back.hub.propose("news", {"from": "the one that came back"})
        status = await back.hub.raft_status()
        assert (status.mesh, status.removed) == (mesh, "")


async def test_a_log_at_rest_is_read(start_node: StartNode, data_dir: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        vote_file = data_dir / "core" / "raft.redb"
        assert read_log(vote_file, 1, 10) == []
        node = await start_node(data_dir=data_dir)
        before = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        await node.hub.raft_found(SETTINGS, {"agent_id": node.agent_id}, [before])
        proposed = await node.hub.propose("news", {"text": "kept"})
        with pytest.raises(CoreError) as busy:
            read_log(vote_file, 1, 10)
        assert getattr(busy.value, "code", "") == "internal"
        peer = node.peer_id
        await node.close()
        entries = [orjson.loads(line) for line in read_log(vote_file, 1, 10)]
        assert entries[0]["body"]["recovers"] == [before]
        last = entries[-1]
        assert (last["index"], last["type"], last["id"]) == (proposed.index, "news", proposed.id)
        assert (last["author"], last["body"], last["reason"]) == (peer, {"text": "kept"}, None)
        assert read_log(vote_file, proposed.index + 1, 10) == []
        vote_file.write_bytes(b"not a vote file")
        with pytest.raises(CoreError) as damaged:
            read_log(vote_file, 1, 10)
        assert getattr(damaged.value, "code", "") == "tampered"

"""The fake hub keeps the promises of the real one that other tests rely on."""

import asyncio

import pytest

from chorus.config import MeshSettings
from chorus.hub import ByteStream, HubNotFound, HubRefused, HubUnavailable, Reply, Request
from chorus.testing.fake_hub import FakeMesh


async def test_topics_reach_other_agents_and_local_topics_only_siblings() -> None:
    mesh = FakeMesh()
    api, coordinator, other = mesh.hub("a", "api"), mesh.hub("a", "coordinator"), mesh.hub("b", "coordinator")
    async with other.subscribe("chorus/tasks") as far, coordinator.subscribe("local/table") as near:
        await api.publish("chorus/tasks", "task_announcement", {"n": 1}, priority="high")
        await api.publish_local("local/table", {"applied": 7})
        message = await far.get()
        assert (message.type, message.sender, message.data) == ("task_announcement", "peer-a", {"n": 1})
        assert message.envelope["priority"] == "high"
        local = await near.get()
        assert (local.sender, local.data) == ("api", {"applied": 7})
        assert far.get_nowait() is None


async def test_services_requests_and_streams() -> None:
    mesh = FakeMesh()
    executor, api, remote = mesh.hub("a", "executor"), mesh.hub("a", "api"), mesh.hub("b", "api")
    seen: list[Request] = []

    async def handler(request: Request) -> Reply:
        seen.append(request)
        if request.method == "no":
            raise HubRefused("busy")
        return Reply({"ok": True}, request.payload[::-1])

    async def streams(request: Request, stream: ByteStream) -> None:
        async for chunk in stream:
            await stream.write(chunk.upper())

    await executor.offer("echo", handler, peers=True, streams=streams)
    reply = await api.call_service("echo", "x", {"a": 1}, b"abc")
    assert (reply.head, reply.payload, seen[-1].process, seen[-1].peer) == ({"ok": True}, b"cba", "api", None)
    await remote.request("peer-a", "echo", "y")
    assert (seen[-1].process, seen[-1].peer) == (None, "peer-b")
    with pytest.raises(HubRefused):
        await remote.request("peer-a", "echo", "no")
    async with await remote.open_stream("echo", "s", peer="peer-a") as stream:

        async def send() -> None:
            await stream.write(b"hello" * 500_000)
            await stream.end()

        sending = asyncio.create_task(send())
        assert await stream.read_all(10_000_000) == b"HELLO" * 500_000
        await sending
    mesh.cut("a", "b")
    with pytest.raises(HubUnavailable):
        await remote.request("peer-a", "echo", "y")


async def test_one_log_in_one_order() -> None:
    mesh = FakeMesh()
    a, b, c = mesh.hub("a", "coordinator"), mesh.hub("b", "coordinator"), mesh.hub("c", "coordinator")
    mesh.found("a", MeshSettings(lease_ms=45_000), "b")
    first = await b.propose("submit", {"task_id": "t"}, entry_id="01")
    again = await a.propose("submit", {"task_id": "t"}, entry_id="01")
    assert first == again
    added = await a.raft_add(c.peer_id, {"agent_id": "c", "request": "r"})
    followed = c.follow(1)
    await followed.open()
    await c.raft_adopt(mesh.mesh or "", added.raft_id, added.founding, [(1, a.peer_id)])
    entries = [await followed.get() for _ in range(len(mesh.entries))]
    assert [entry.index for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.type for entry in entries] == ["found", "leader", "join", "submit", "join"]
    status = await c.raft_status()
    assert status.role == "learner"
    assert status.settings == MeshSettings(lease_ms=45_000)
    with pytest.raises(HubNotFound):
        await a.dht_get("content", "nothing")

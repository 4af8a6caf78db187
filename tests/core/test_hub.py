"""The hub and its client: siblings, gaps, bad frames, and coming back after a loss."""

from __future__ import annotations

import asyncio
import struct

import orjson
import pytest

from chorus.config import MeshSettings
from chorus.core import Node
from chorus.hub import Hub, HubClosed, HubError, HubInvalid, HubTooLarge, HubUnavailable, Request
from chorus.hub.frames import FRAME_MAX_BYTES

from .conftest import PATIENCE_S, StartNode


async def echo(request: Request) -> dict[str, object]:
    return {"process": request.process, "peer": request.peer, **request.head}


async def test_siblings_call_each_other(start_node: StartNode) -> None:
    node = await start_node()
    async with asyncio.timeout(PATIENCE_S), await Hub.connect(node.hub_path, "other") as other:
        await node.hub.offer("echo", echo)
        reply = await other.call_service("echo", "x", {"n": 1})
        assert reply.head == {"process": "other", "peer": None, "n": 1}
        await other.offer("echo", echo)
        assert (await node.hub.call_service("echo", "x")).head["process"] == "library"
    with pytest.raises(HubUnavailable):
        await node.hub.call_service("echo", "x")
    with pytest.raises(HubInvalid):
        await node.hub.call("nonsense")
    with pytest.raises(HubClosed):
        await other.call("net.state")


async def test_a_slow_subscriber_gets_a_counted_gap(start_node: StartNode) -> None:
    node = await start_node()
    async with (
        asyncio.timeout(PATIENCE_S),
        node.subscribe("local/t", queue=4) as slow,
        node.subscribe("local/t", queue=1000) as fast,
    ):
        for n in range(100):
            await node.hub.publish_local("local/t", n)
        assert [(await fast.get()).data for _ in range(100)] == list(range(100))
        assert [(await slow.get()).data for _ in range(4)] == [0, 1, 2, 3]
        await node.hub.net_state()
        await node.hub.publish_local("local/t", 100)
        message = await slow.get()
        assert (message.data, message.gap) == (100, 96)


async def test_everything_comes_back_when_the_core_does(start_node: StartNode) -> None:
    node = await start_node()
    async with asyncio.timeout(PATIENCE_S), await Hub.connect(node.hub_path, "sibling") as sibling:
        await sibling.offer("echo", echo)
        async with node.subscribe("local/t") as messages:
            await sibling.publish_local("local/t", 1)
            assert (await messages.get()).gap == 0
            peer = node.peer_id
            await node.stop_core()
            with pytest.raises(HubUnavailable):
                await sibling.call("net.state", timeout=0.1)
            await node.start()
            await sibling.connected.wait()
            await node.hub.connected.wait()
            assert node.peer_id == peer
            await sibling.publish_local("local/t", 2)
            message = await messages.get()
            assert (message.data, message.gap) == (2, -1)
            assert (await node.hub.call_service("echo", "x")).head["process"] == "library"


async def test_calls_in_flight_end_when_the_core_does(start_node: StartNode) -> None:
    node = await start_node()
    arrived = asyncio.Event()

    async def hang(request: Request) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S), await Hub.connect(node.hub_path, "sibling") as sibling:
        await sibling.offer("hang", hang)
        call = asyncio.create_task(node.hub.call_service("hang", "x", timeout=50))
        await arrived.wait()
        await node.stop_core()
        with pytest.raises(HubError) as ended:
            await call
        assert ended.value.code in ("closed", "unavailable")


async def test_followers_miss_nothing_across_a_restart(start_node: StartNode) -> None:
    node = await start_node()
    settings = MeshSettings(heartbeat_ms=100, election_timeout_ms=400)
    async with asyncio.timeout(PATIENCE_S), node.hub.follow(1, queue=4) as entries:
        await node.hub.raft_found(settings, {})
        for n in range(20):
            await node.hub.propose("submit", {"task_id": str(n)})
        seen = [await entries.get() for _ in range(5)]
        await node.stop_core()
        await node.start()
        await node.hub.connected.wait()
        last = await node.hub.propose("submit", {"task_id": "last"})
        while seen[-1].index < last.index:
            seen.append(await entries.get())
        assert [entry.index for entry in seen] == list(range(1, last.index + 1))


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack(">IBII", 0xFFFFFFFF, 1, 1, 0),
        struct.pack(">IBII", FRAME_MAX_BYTES + 1, 7, 1, 0),
        struct.pack(">IBII", 9, 99, 1, 0),
        struct.pack(">IBII", 11, 1, 1, 2) + b"[]",
        struct.pack(">IBII", 9, 1, 1, 77),
    ],
)
async def test_a_bad_frame_closes_its_connection_alone(start_node: StartNode, bad: bytes) -> None:
    node = await start_node()
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_unix_connection(str(node.hub_path))
        head = orjson.dumps({"m": "hello", "name": "raw"})
        writer.write(struct.pack(">IBII", 9 + len(head), 1, 1, len(head)) + head)
        assert (await reader.readexactly(13))[4] == 2
        writer.write(bad)
        await reader.read()
        assert reader.at_eof()
        writer.close()
        assert (await node.hub.stats())["hub_bad_connections"] == 1


async def test_a_frame_above_the_ceiling_is_not_sent(start_node: StartNode) -> None:
    node = await start_node()
    with pytest.raises(HubTooLarge):
        await node.hub.redact(bytes(FRAME_MAX_BYTES))
    assert (await node.hub.redact(b"plain")) == b"plain"


async def test_a_cancelled_call_cancels_its_handler(start_node: StartNode) -> None:
    node: Node = await start_node()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request: Request) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asyncio.timeout(PATIENCE_S), await Hub.connect(node.hub_path, "caller") as caller:
        await node.hub.offer("hang", hang)
        call = asyncio.create_task(caller.call_service("hang", "x", timeout=50))
        await started.wait()
        call.cancel()
        await cancelled.wait()

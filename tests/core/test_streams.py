"""Streams between two real nodes when one side gives up: nothing hangs, nothing that ended cleanly loses its
tail, nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import pytest

from chorus.core import Node
from chorus.hub import ByteStream, Hub, HubClosed, HubError, HubRefused, Request

from .conftest import PATIENCE_S, StartNode, connected

# More than one window and the network's together, but less than what fits between two processes.
TAIL_BYTES = 1536 * 1024
TAIL = os.urandom(64 * 1024) * (TAIL_BYTES // (64 * 1024))
# More than fits anywhere between a writer and a reader that does not read.
ENDLESS = bytes(16 * 1024 * 1024)


async def accept(request: Request) -> None:
    return None


async def pair(server: Node, opener: Hub) -> tuple[ByteStream, ByteStream]:
    """Both ends of a stream from `opener` to `server`."""
    served: asyncio.Future[ByteStream] = asyncio.get_running_loop().create_future()

    async def keep(request: Request, stream: ByteStream) -> None:
        served.set_result(stream)
        await asyncio.Event().wait()

    await server.serve("s", accept, streams=keep)
    stream = await opener.open_stream("s", "m", peer=server.peer_id)
    return stream, await served


@pytest.fixture
async def nodes(start_node: StartNode) -> list[Node]:
    first = await start_node()
    second = await start_node([first])
    await connected(first, second)
    await connected(second, first)
    return [first, second]


@pytest.fixture(params=["opener", "server"])
async def ends(request: pytest.FixtureRequest, nodes: list[Node]) -> tuple[ByteStream, ByteStream]:
    """The end that gives up, opener or server, and the far one."""
    opened, served = await pair(nodes[0], nodes[1].hub)
    return (opened, served) if request.param == "opener" else (served, opened)


async def nothing_left(nodes: list[Node]) -> None:
    """Returns when neither hub holds or carries a stream any more."""
    async with asyncio.timeout(PATIENCE_S):
        for node in nodes:
            while True:
                stats = await node.hub.stats()
                if not stats["hub_streams"] and not stats["hub_peer_streams"]:
                    break
                await asyncio.sleep(0.01)


async def everything(stream: ByteStream) -> bytes:
    """All that comes up to the clean end, read slowly."""
    parts = []
    while part := await stream.read(10_000):
        parts.append(part)
        await asyncio.sleep(0)
    return b"".join(parts)


async def write_for_ever(stream: ByteStream) -> None:
    """Writes until that fails."""
    while True:
        await stream.write(ENDLESS)


async def test_a_tail_that_ended_cleanly_outlives_its_writer(
    nodes: list[Node], ends: tuple[ByteStream, ByteStream]
) -> None:
    near, far = ends
    async with asyncio.timeout(PATIENCE_S):
        await near.write(TAIL)
        await near.end()
        await near.close()
        assert await everything(far) == TAIL
        with pytest.raises(HubClosed):
            await write_for_ever(far)
    await nothing_left(nodes)


async def test_a_far_end_that_writes_before_it_reads_gets_the_tail_too(
    nodes: list[Node], ends: tuple[ByteStream, ByteStream]
) -> None:
    near, far = ends
    async with asyncio.timeout(PATIENCE_S):
        await near.write(TAIL)
        await near.end()
        await near.close()
        with contextlib.suppress(HubClosed):
            await far.write(ENDLESS)
        assert await everything(far) == TAIL
        await far.close()
    await nothing_left(nodes)


async def test_a_reset_reaches_a_slow_reader_with_its_code(
    nodes: list[Node], ends: tuple[ByteStream, ByteStream]
) -> None:
    near, far = ends
    async with asyncio.timeout(PATIENCE_S):
        await near.write(TAIL)
        await near.close(HubRefused("no more of it"))
        with pytest.raises(HubRefused, match="no more of it"):
            await everything(far)
        with pytest.raises(HubRefused):
            await far.write(b"x")
    await nothing_left(nodes)


async def test_a_writer_hears_that_its_reader_is_gone(
    nodes: list[Node], ends: tuple[ByteStream, ByteStream]
) -> None:
    near, far = ends

    async def read() -> None:
        async with near:
            await near.read()
            await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S):
        reading = asyncio.create_task(read())
        writing = asyncio.create_task(far.write(ENDLESS))
        # Until all that lies between them is full, which nothing tells.
        await asyncio.wait([writing], timeout=0.5)
        reading.cancel()
        with pytest.raises(HubClosed):
            await writing
        with pytest.raises(HubClosed):
            await far.read()
    await nothing_left(nodes)


async def test_both_stuck_writing_and_one_gives_up(
    nodes: list[Node], ends: tuple[ByteStream, ByteStream]
) -> None:
    near, far = ends
    async with asyncio.timeout(PATIENCE_S):
        writers = [asyncio.create_task(end.write(ENDLESS)) for end in (near, far)]
        await asyncio.wait(writers, timeout=0.5)
        writers[0].cancel()
        await near.close(HubRefused("enough"))
        with contextlib.suppress(HubRefused):
            await writers[1]
        with pytest.raises(HubRefused, match="enough"):
            await everything(far)
    await nothing_left(nodes)


async def test_one_direction_goes_on_after_the_other_has_ended(
    nodes: list[Node], ends: tuple[ByteStream, ByteStream]
) -> None:
    near, far = ends
    async with asyncio.timeout(PATIENCE_S):
        await near.end()
        assert await far.read() == b""
        sending = asyncio.create_task(far.write(ENDLESS))
        received = 0
        while received < len(ENDLESS):
            received += len(await near.read())
        await sending
        await far.write(b"last")
        await far.end()
        assert await everything(near) == b"last"
    await nothing_left(nodes)


KILLED = """
import asyncio, sys
from chorus.hub import Hub, Request

async def main(path, peer, ends):
    hub = await Hub.connect(path, "killed")
    stream = await hub.open_stream("s", "m", peer=peer)
    await stream.write(bytes(1536 * 1024))
    if ends == "ends":
        await stream.end()
    # Answered after what was sent before it has been taken.
    await hub.stats()
    print("written", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("ends_first", [True, False])
async def test_what_a_killed_process_ended_cleanly_arrives(nodes: list[Node], ends_first: bool) -> None:
    server, opener = nodes
    served: asyncio.Future[ByteStream] = asyncio.get_running_loop().create_future()

    async def keep(request: Request, stream: ByteStream) -> None:
        served.set_result(stream)
        await asyncio.Event().wait()

    await server.serve("s", accept, streams=keep)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        str(opener.hub_path),
        server.peer_id,
        "ends" if ends_first else "open",
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"written\n"
        process.kill()
        await process.wait()
        far = await served
        if ends_first:
            assert len(await everything(far)) == TAIL_BYTES
            with pytest.raises(HubClosed):
                await write_for_ever(far)
        else:
            with pytest.raises(HubClosed):
                await everything(far)
    await nothing_left(nodes)


async def test_a_peer_that_is_gone_cuts_its_streams_off(nodes: list[Node]) -> None:
    server, opener = nodes
    near, far = await pair(server, opener.hub)
    async with asyncio.timeout(PATIENCE_S):
        await far.write(b"half")
        assert await near.read() == b"half"
        await server.close()
        with pytest.raises(HubError) as cut:
            await near.read()
        assert cut.value.code in ("unavailable", "closed")
    await nothing_left([opener])

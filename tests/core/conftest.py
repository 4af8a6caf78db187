"""Real cores on loopback: nodes that know each other, in temporary folders, gone after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chorus._core")

from chorus.core import Node

SECRET = b"a secret for tests, long enough"
# Generous: a loaded machine is no failure.
PATIENCE_S = 60.0

StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def start_node() -> AsyncIterator[StartNode]:
    """Starts nodes; options are those of `Node`."""
    async with AsyncExitStack() as stack:

        async def start(bootstrap: list[Node] | None = None, **options: Any) -> Node:
            addresses = [address for node in bootstrap or [] for address in node.addresses]
            node = Node(SECRET, bootstrap=addresses, threads=1, **options)
            return await stack.enter_async_context(node)

        yield start


@pytest.fixture
async def three(start_node: StartNode) -> list[Node]:
    """Three nodes, each connected to each."""
    first = await start_node()
    second = await start_node([first])
    third = await start_node([first, second])
    nodes = [first, second, third]
    for node in nodes:
        await connected(node, *(other for other in nodes if other is not node))
    return nodes


async def connected(node: Node, *others: Node) -> None:
    """Returns when `node` is connected to all of `others`."""
    missing = {other.peer_id for other in others}
    async with node.events() as events:
        missing -= {peer["peer"] for peer in (await node.hub.net_state())["peers"]}
        while missing:
            event = await events.get()
            if event["kind"] == "peer_up":
                missing.discard(event["peer"])


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory that outlives a node."""
    return tmp_path / "data"

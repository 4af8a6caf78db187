"""`Node`: a whole core in the caller's process, with a hub of its own. Needs nothing else of CHORUS."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from chorus._core import Core
from chorus.core.config import core_config
from chorus.hub import ByteStream, DhtValue, EventFeed, Handler, Hub, Reply, StreamHandler, Subscription

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
# The hub answers as soon as the core has started.
HUB_WAIT_S = 10.0


class Node:
    """A libp2p node of a cluster.

    `async with Node(cluster_secret) as node:` starts it; without `data_dir` its identity is new each
    time and nothing stays behind. Everything else that the core can do is on `node.hub`.
    """

    def __init__(
        self,
        cluster_secret: bytes,
        *,
        data_dir: Path | None = None,
        listen: Sequence[str] = LOOPBACK,
        bootstrap: Sequence[str] = (),
        mdns: bool = False,
        dht: bool = True,
        agent_id: str | None = None,
        role: str | None = None,
        name: str = "library",
        threads: int | None = None,
        shhh_rules: str | None = None,
    ) -> None:
        self._secret = cluster_secret
        self._data_dir = data_dir
        self._options: dict[str, Any] = {
            "listen": listen,
            "bootstrap": bootstrap,
            "mdns": mdns,
            "dht": dht,
            "agent_id": agent_id,
            "role": role,
            "threads": threads,
            "shhh_rules": shhh_rules,
        }
        self._name = name
        self._private: Path | None = None
        self._core: Core | None = None
        self._hub: Hub | None = None

    @property
    def hub(self) -> Hub:
        """The node's hub client: every method of the core."""
        if self._hub is None:
            raise RuntimeError("the node is not running: use it with `async with`")
        return self._hub

    @property
    def hub_path(self) -> Path:
        """The hub's socket, for more clients of the same user."""
        if self._private is None:
            raise RuntimeError("the node is not running: use it with `async with`")
        return self._private / "hub.sock"

    @property
    def peer_id(self) -> str:
        """This node's peer id."""
        return self.hub.peer_id

    @property
    def agent_id(self) -> str:
        """This node's name."""
        return self.hub.agent_id

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as multiaddrs with `/p2p/`: what others put into `bootstrap`."""
        if self._core is None:
            return []
        listen: list[str] = orjson.loads(self._core.info())["listen"]
        return listen

    async def start(self) -> None:
        """Starts the core and connects to its hub."""
        if self._core is not None:
            return
        # Short, as socket paths must be; private, as mkdtemp makes it.
        if self._private is None:
            self._private = Path(tempfile.mkdtemp(prefix="chorus-"))
        config = core_config(
            data_dir=self._data_dir or self._private / "data",
            hub=self.hub_path,
            cluster_secret=self._secret,
            **self._options,
        )
        try:
            self._core = await asyncio.to_thread(Core.start, config)
            if self._hub is None:
                self._hub = await Hub.connect(self.hub_path, self._name, retry_for=HUB_WAIT_S)
        except BaseException:
            await self.close()
            raise

    async def stop_core(self) -> None:
        """Stops the core alone; the hub client stays and comes back after `start`."""
        if self._core is not None:
            core, self._core = self._core, None
            await asyncio.to_thread(core.stop)

    async def close(self) -> None:
        """Stops everything; a node without a `data_dir` is gone then."""
        if self._hub is not None:
            hub, self._hub = self._hub, None
            await hub.close()
        await self.stop_core()
        if self._private is not None:
            private, self._private = self._private, None
            await asyncio.to_thread(shutil.rmtree, private, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def publish(self, topic: str, type: str, data: Any) -> str:
        """Publishes a message; the core makes and signs its envelope."""
        return await self.hub.publish(topic, type, data)

    def subscribe(self, *topics: str, queue: int = 1024) -> Subscription:
        """Messages on topics, as an asynchronous context manager and iterator."""
        return self.hub.subscribe(*topics, queue=queue)

    def events(self) -> EventFeed:
        """Peers coming and going, and what else happens in the core."""
        return self.hub.events()

    async def serve(self, service: str, handler: Handler, *, streams: StreamHandler | None = None) -> None:
        """Answers peers' requests to `service`, and takes their streams."""
        await self.hub.offer(service, handler, peers=True, streams=streams)

    async def request(
        self,
        peer: str,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        timeout: float = 10.0,
    ) -> Reply:
        """Asks a service of a peer."""
        return await self.hub.request(peer, service, method, head, payload, timeout)

    async def open_stream(
        self,
        peer: str,
        service: str,
        method: str,
        head: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
    ) -> ByteStream:
        """Opens a byte stream to a service of a peer."""
        return await self.hub.open_stream(service, method, head, peer=peer, timeout=timeout)

    async def dht_put(self, kind: str, name: str, value: bytes, *, role: str | None = None) -> str:
        """Seals, signs and stores a value."""
        return await self.hub.dht_put(kind, name, value, role=role)

    async def dht_get(self, kind: str, name: str) -> DhtValue:
        """Finds, checks and opens a value."""
        return await self.hub.dht_get(kind, name)

    async def dial(self, addr: str) -> None:
        """Connects to a multiaddr."""
        await self.hub.dial(addr)

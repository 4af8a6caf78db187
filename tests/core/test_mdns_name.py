"""Under which name agents announce themselves on the local network, read from their own packets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from .conftest import PATIENCE_S, StartNode

GROUP, PORT = "224.0.0.251", 5353
# As DNS writes `_chorus-peer-discovery._udp`; what follows may be a pointer to an earlier `local`.
NAME = b"\x16_chorus-peer-discovery\x04_udp"


async def test_agents_announce_themselves_as_chorus_peer_discovery(start_node: StartNode) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        heard.setblocking(False)
        try:
            heard.bind(("", PORT))
            membership = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
            heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError as error:
            pytest.skip(f"this machine has no multicast on loopback: {error}")
        node = await start_node(mdns=True)
        address = f"dnsaddr={node.addresses[0]}".encode()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                packet = await asyncio.get_running_loop().sock_recv(heard, 65536)
                if address in packet:
                    break
        assert NAME in packet
        assert node.peer_id.encode() in packet

"""Whether a server is on this machine or in a private network, by its addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final

# Loopback and the private networks of RFC 1918 and RFC 4193. Link-local addresses are none of them: what
# answers there is the host's, as a cloud's service for metadata is.
_LOCAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)


def is_local(address: str) -> bool:
    """Whether an IP address is one of loopback or of a private network; False for what is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _LOCAL if network.version == ip.version)


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that a name has now. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def local_address(host: str, port: int) -> str | None:
    """An address to reach a host at, if all that it has are local; else None. Raises OSError."""
    addresses = await addresses_of(host, port)
    return addresses[0] if addresses and all(map(is_local, addresses)) else None

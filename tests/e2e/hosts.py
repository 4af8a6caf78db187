"""Agents on hosts of their own: a network namespace each, joined by a network of this process that can fail.

Every packet passes through here, so that hosts are cut off, and packets lost, delayed, doubled and overtaken,
without help from the kernel beyond TUN devices.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import selectors
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from .sites import Site, T

LICENSE = "dev-network-faults"
PACKET_MAX_BYTES = 2048
# linux/sched.h, linux/if_tun.h
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# RFC 791: where a packet says where it goes.
DESTINATION = slice(16, 20)

# RFC 1035: the length of a message's head; its flags in answers; types of records; their class.
DNS_HEAD_BYTES, DNS_ANSWER, DNS_NO_SUCH_NAME = 12, 0x8580, 0x8583
DNS_A, DNS_SOA, DNS_INTERNET = 1, 6, 1
DNS_MESSAGE_BYTES = 512
# The public root allows this long to keep the answer that a name does not exist.
DNS_NEGATIVE_TTL_S = 86_400

_libc = ctypes.CDLL(None, use_errno=True)


def can_make_hosts() -> bool:
    """Whether this machine lets this user make network namespaces."""
    return (
        os.getuid() == 0
        and shutil.which("ip") is not None
        and Path("/dev/net/tun").exists()
        and subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
    )


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to packets: chances from 0 to 1; each is delayed by a time between the two, in seconds."""

    loss: float = 0
    duplicate: float = 0
    delay_s: tuple[float, float] = (0, 0)


class Network:
    """Carries packets between the hosts, in a thread of its own."""

    def __init__(self, seed: int) -> None:
        self.faults = Faults()
        # Pairs of addresses between which nothing goes; a host's own pair cuts it off from all.
        self.cuts: set[frozenset[bytes]] = set()
        self._dice = random.Random(seed)
        self._devices: dict[bytes, int] = {}
        self._selector = selectors.DefaultSelector()
        self._travelling: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._selector.close()
        for device in self._devices.values():
            os.close(device)

    def plug(self, address: str, device: int) -> None:
        """From here on the device is this network's."""
        os.set_blocking(device, False)
        place = IPv4Address(address).packed
        self._devices[place] = device
        self._selector.register(device, selectors.EVENT_READ, place)

    def _carry(self) -> None:
        while not self._over.is_set():
            now = time.monotonic()
            wait = self._travelling[0][0] - now if self._travelling else 0.1
            for key, _ in self._selector.select(max(0.0, min(wait, 0.1))):
                with suppress(OSError):
                    while packet := os.read(key.fd, PACKET_MAX_BYTES):
                        self._send(key.data, packet)
            now = time.monotonic()
            while self._travelling and self._travelling[0][0] <= now:
                _, _, device, packet = heapq.heappop(self._travelling)
                # A device that is full drops, as any would.
                with suppress(OSError):
                    os.write(device, packet)

    def _send(self, source: bytes, packet: bytes) -> None:
        to, faults = bytes(packet[DESTINATION]), self.faults
        device = self._devices.get(to)
        if device is None or self.cuts & {frozenset({source, to}), frozenset({source}), frozenset({to})}:
            return
        for _ in range(2 if self._dice.random() < faults.duplicate else 1):
            if self._dice.random() >= faults.loss:
                due = time.monotonic() + self._dice.uniform(*faults.delay_s)
                heapq.heappush(self._travelling, (due, next(self._numbers), device, packet))


class Names:
    """A name server on each host, in a thread of its own: what a name leads to changes as tests go on."""

    def __init__(self) -> None:
        self._addresses: dict[str, list[str]] = {}
        self._servers: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Names:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for server in self._servers:
            server.close()
        self._selector.close()

    def add(self, name: str, address: str) -> None:
        """From now on the name leads to this address too."""
        self._addresses[name] = [*self._addresses.get(name, ()), address]

    def serve(self, server: socket.socket) -> None:
        """From here on this socket's questions are answered."""
        self._servers.append(server)
        self._selector.register(server, selectors.EVENT_READ)

    def _serve(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.1):
                server = key.fileobj
                assert isinstance(server, socket.socket)
                with suppress(OSError, IndexError, UnicodeDecodeError):
                    question, client = server.recvfrom(DNS_MESSAGE_BYTES)
                    server.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        labels, place = [], DNS_HEAD_BYTES
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length].decode())
            place += 1 + length
        asked = question[DNS_HEAD_BYTES : place + 5]
        wanted = int.from_bytes(question[place + 1 : place + 3])
        found = self._addresses.get(".".join(labels).lower())
        # A name in a record is written as the place of the question's.
        name = struct.pack(">H", 0xC000 | DNS_HEAD_BYTES)
        records = [
            name + struct.pack(">HHIH", DNS_A, DNS_INTERNET, 0, 4) + IPv4Address(address).packed
            for address in (found or ())
            if wanted == DNS_A
        ]
        authority = b""
        if not records:
            start = b"\0\0" + struct.pack(">5I", 1, 1800, 900, 604_800, DNS_NEGATIVE_TTL_S)
            head = struct.pack(">HHIH", DNS_SOA, DNS_INTERNET, DNS_NEGATIVE_TTL_S, len(start))
            authority = b"\0" + head + start
        code = DNS_NO_SUCH_NAME if found is None else DNS_ANSWER
        counts = struct.pack(">HHHHH", code, 1, len(records), 1 if authority else 0, 0)
        return question[:2] + counts + asked + b"".join(records) + authority


class Host(Site):
    """A site on a host of its own. What is asked of the agent is asked on the host."""

    def __init__(self, number: int, folder: Path, network: Network, names: Names | None = None) -> None:
        super().__init__(f"host-{number}", f"10.213.77.{number}", folder, LICENSE)
        self.number = number
        self.host = "127.0.0.1"
        self._network, self._names, self._folder = network, names, folder
        # Only this thread, and the processes it starts, are on the host.
        self._inside = ThreadPoolExecutor(1)
        network.plug(self.address, self._here(self._make))

    def cut(self, other: Host | None = None) -> None:
        """Nothing comes from or goes to the other host any more, or to anybody."""
        self._network.cuts.add(self._pair(other))

    def heal(self, other: Host | None = None) -> None:
        """What `cut` did is over."""
        self._network.cuts.discard(self._pair(other))

    def remove(self) -> None:
        """Ends the agent; the host goes with the last process on it."""
        super().remove()
        self._inside.shutdown()

    def _pair(self, other: Host | None) -> frozenset[bytes]:
        return frozenset(IPv4Address(host.address).packed for host in (self, other) if host is not None)

    def _here(self, what: Callable[[], T]) -> T:
        return self._inside.submit(what).result()

    def _make(self) -> int:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no network namespace can be made")
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"net0", IFF_TUN | IFF_NO_PI))
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "net0"),
            ("link", "set", "net0", "up"),
        ):
            subprocess.run(["ip", *words], check=True, capture_output=True)
        if self._names is not None:
            self._names.serve(self._make_name_server())
        return device

    def _make_name_server(self) -> socket.socket:
        """A socket that is asked for names by whatever runs on this host, and by nothing else."""
        if _libc.unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace can be made")
        settings = self._folder / "resolv.conf"
        settings.write_text("nameserver 127.0.0.1\noptions ndots:0\n")
        for words in (("--make-rprivate", "/"), ("--bind", str(settings), "/etc/resolv.conf")):
            subprocess.run(["mount", *words], check=True, capture_output=True)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        return server


@contextmanager
def hosts(count: int, folder: Path, network: Network, names: Names | None = None) -> Iterator[list[Host]]:
    """So many hosts on the network, without agents yet; with `names`, they resolve what it knows."""
    with ExitStack() as stack:
        stack.enter_context(network)
        if names is not None:
            stack.enter_context(names)
        made = []
        for number in range(1, count + 1):
            made.append(Host(number, folder, network, names))
            stack.callback(made[-1].remove)
        yield made

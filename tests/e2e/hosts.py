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
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

import httpx

from .conftest import GENEROUS_S, bare_environ

T = TypeVar("T")

LICENSE = "dev-network-faults"
PACKET_MAX_BYTES = 2048
# linux/sched.h, linux/if_tun.h
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# RFC 791: where a packet says where it goes.
DESTINATION = slice(16, 20)

_libc = ctypes.CDLL(None, use_errno=True)


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


class Host:
    """One host with its agent. What is asked of the agent is asked on the host."""

    def __init__(self, number: int, folder: Path, network: Network) -> None:
        self.number = number
        self.agent_id = f"host-{number}"
        self.address = f"10.213.77.{number}"
        self.data_dir = folder / self.agent_id
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        # Only this thread, and the processes it starts, are on the host.
        self._inside = ThreadPoolExecutor(1)
        network.plug(self.address, self._here(self._make))

    def cut(self, other: Host | None = None) -> None:
        """Nothing comes from or goes to the other host any more, or to anybody."""
        self._network.cuts.add(self._pair(other))

    def heal(self, other: Host | None = None) -> None:
        """What `cut` did is over."""
        self._network.cuts.discard(self._pair(other))

    def start(self, others: list[Host], **more: str) -> None:
        """Starts the agent, which knows where the others are."""
        environ = bare_environ()
        environ |= {
            "CHORUS_LICENSE_ID": LICENSE,
            "CHORUS_AGENT_ID": self.agent_id,
            "CHORUS_DATA_DIR": str(self.data_dir),
            "CHORUS_RUN_DIR": str(self.data_dir.parent / f"r{self.number}"),
            "CHORUS_P2P_HOST": self.address,
            "CHORUS_MDNS_ENABLED": "false",
            "CHORUS_BOOTSTRAP_PEERS": ",".join(
                f"/ip4/{other.address}/tcp/9000" for other in others if other is not self
            ),
            **more,
        }
        command = [sys.executable, "-m", "chorus.agent"]
        with (self.data_dir.parent / f"{self.agent_id}.log").open("ab") as log:

            def begin() -> subprocess.Popen[bytes]:
                return subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)

            self._process = self._here(begin)

    def kill(self) -> None:
        """Ends the agent at once, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(GENEROUS_S)
            self._process = None

    def remove(self) -> None:
        """Ends the agent; the host goes with the last process on it."""
        self.kill()
        self._inside.shutdown()

    def ask(self, method: str, path: str, timeout_s: float = 60, **more: Any) -> httpx.Response:
        """One request to the agent's API; raises httpx.TransportError."""

        def once() -> httpx.Response:
            if self._client is None:
                token = (self.data_dir / "api-token").read_text().strip()
                self._client = httpx.Client(
                    base_url="http://127.0.0.1:8080",
                    headers={"Authorization": f"Bearer {token}"},
                    trust_env=False,
                )
            return self._client.request(method, path, timeout=timeout_s, **more)

        return self._here(once)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of an answer; None while there is no good one."""
        try:
            answer = self.ask("GET", path, params=params)
        except (httpx.TransportError, OSError):
            return None
        return answer.json() if answer.status_code == 200 else None

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
        return device


@contextmanager
def hosts(count: int, folder: Path, network: Network) -> Iterator[list[Host]]:
    """So many hosts on the network, without agents yet."""
    with ExitStack() as stack:
        stack.enter_context(network)
        made = []
        for number in range(1, count + 1):
            made.append(Host(number, folder, network))
            stack.callback(made[-1].remove)
        yield made

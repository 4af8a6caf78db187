"""A flood of each kind for a minute beside ordinary tasks: they all end, nothing grows, and an honest
stranger is still heard.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from e2e.conftest import Mesh
from e2e.test_run import until

from .conftest import Stranger
from .peer import HostilePeer
from .processes import completed, rss_bytes, work_goes_on

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

FLOOD_S = 60.0
TASKS = 30
GROWTH_MAX_BYTES = 64 << 20
IDENTITIES = 24

Flood = Callable[[Mesh, HostilePeer, float], None]


def task(title: str, **more: Any) -> bytes:
    return json.dumps({"title": title, "commands": ["true"], **more}).encode()


def publish(topic: str, kind: str, data: bytes, age_s: float = 0) -> Flood:
    """All identities in turn publish one message as fast as they can."""

    def flood(mesh: Mesh, peer: HostilePeer, end: float) -> None:
        number = 0
        while time.monotonic() < end:
            identity = number % IDENTITIES
            number += 1
            message = peer.envelope(kind, data, identity, age_s)
            peer.publish(topic, message, identity=identity, count=1_000_000, seconds=1.0)

    return flood


def requests(mesh: Mesh, peer: HostilePeer, end: float) -> None:
    number = 0
    while time.monotonic() < end:
        number += 1
        head = b'{"sha256": "' + b"0" * 60_000 + b'"}'
        peer.request("coordinator", "blobs.has", head, identity=number % IDENTITIES)


def frames(protocol: str, body: bytes) -> Flood:
    """Frames of one protocol, each as large as it may be and more."""

    def flood(mesh: Mesh, peer: HostilePeer, end: float) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            frame = len(body).to_bytes(4, "big") + body
            peer.write(protocol, frame, identity=number % IDENTITIES, count=50)

    return flood


def unwanted(mesh: Mesh, peer: HostilePeer, end: float) -> None:
    """Gossip's control messages as large as they may be: ids that nobody is to send."""

    def field(tag: int, body: bytes) -> bytes:
        # A varint of two bytes.
        return bytes([tag << 3 | 2, len(body) & 0x7F | 0x80, len(body) >> 7]) + body

    numbers, identities = itertools.count(), itertools.cycle(range(IDENTITIES))
    while time.monotonic() < end:
        ids = [number.to_bytes(8, "big") + bytes(15_992) for number in itertools.islice(numbers, 100)]
        # RPC.control (3) holds idontwant (5), which holds messageIDs (1); the length stands before it.
        frames = b"".join(field(0, field(3, field(5, field(1, id))))[1:] for id in ids)
        peer.write("/meshsub/1.2.0", frames, identity=next(identities))


def headers(mesh: Mesh, peer: HostilePeer, end: float) -> None:
    """Endless headers to both ports, without a token."""
    addresses = [urlsplit(mesh.agents[0].api), urlsplit(mesh.agents[0].health)]
    number = 0
    while time.monotonic() < end:
        number += 1
        address = addresses[number % 2]
        assert address.hostname is not None
        with socket.create_connection((address.hostname, address.port or 80), timeout=5) as client:
            try:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
                for _ in range(2000):
                    client.sendall(b"X-More: " + b"y" * 8000 + b"\r\n")
            except OSError:
                continue


ANNOUNCEMENTS = "announcements"
# Of all strangers together.
OPEN_MAX = 500

FLOODS: dict[str, Flood] = {
    "stale messages": publish("chorus/tasks", "task_cancel", b'{"task_id": "' + b"0" * 26 + b'"}', 3600),
    "cancels of unknown tasks": publish("chorus/tasks", "task_cancel", b'{"task_id": "' + b"0" * 26 + b'"}'),
    "unknown types": publish("chorus/tasks", "no_such_type", b"{}"),
    "rubbish": publish("chorus/election/v1", "heartbeat", b'{"term": 1e999}'),
    "large messages": publish(
        "chorus/health", "health_status", json.dumps({"status": "x" * 200_000}).encode()
    ),
    "refused requests": requests,
    "empty Raft entries": frames("/chorus/raft/1.0.0", b"\x3a\x00" * (1 << 20)),
    "requests of 16 MiB": frames("/chorus/request/1.0.0", bytes([1]) + bytes(16 << 20)),
    "unwanted ids": unwanted,
    "endless headers": headers,
    # The last: what it fills of the strangers' share stays filled for an hour.
    ANNOUNCEMENTS: publish("chorus/tasks", "task_announcement", task("flood", required_role="nobody-has-it")),
}


@contextmanager
def watched(mesh: Mesh) -> Iterator[dict[str, int]]:
    """The most that each process grew, by `agent/process`, sampled while the block runs."""
    pids = {
        f"{agent.agent_id}/{name}": pid for agent in mesh.agents for name, pid in agent.processes().items()
    }
    before = {name: rss_bytes(pid) for name, pid in pids.items()}
    growth = dict.fromkeys(pids, 0)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.5):
            for name, pid in pids.items():
                # A process that is gone fails the comparison of pids below.
                growth[name] = max(growth[name], rss_bytes(pid) - before[name])

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield growth
    finally:
        over.set()
        sampler.join()
    now = {
        f"{agent.agent_id}/{name}": pid for agent in mesh.agents for name, pid in agent.processes().items()
    }
    assert now == pids, "a process was restarted"


def ordinary_tasks(mesh: Mesh) -> list[tuple[Any, str]]:
    """Submitted one after the other over all agents while the flood goes on."""
    found = []
    for number in range(TASKS):
        agent = mesh.agents[number % len(mesh.agents)]
        answer = agent.post("/api/v1/tasks", {"title": "ordinary", "commands": ["echo ordinary"]})
        assert answer.status_code == 201, answer.text
        found.append((agent, answer.json()["task_id"]))
    return found


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_beside_ordinary_tasks(
    mesh: Mesh, stranger: Stranger, kind: str, record_property: Callable[[str, object], None]
) -> None:
    work_goes_on(mesh)
    with stranger(identities=IDENTITIES) as peer, watched(mesh) as growth:
        end = time.monotonic() + FLOOD_S
        flood = threading.Thread(target=FLOODS[kind], args=(mesh, peer, end))
        flood.start()
        tasks = ordinary_tasks(mesh)
        for agent, task_id in tasks:
            until(lambda agent=agent, task_id=task_id: completed(agent, task_id))
        flood.join()
    record_property("growth_mib", {name: grown >> 20 for name, grown in growth.items()})
    print(
        f"{kind}: most growth {max(growth.values()) >> 20} MiB ({max(growth, key=lambda name: growth[name])})"
    )
    assert max(growth.values()) < GROWTH_MAX_BYTES, growth
    # The flooder is the one refused.
    if kind == ANNOUNCEMENTS:
        waiting = mesh.agents[1].get("/api/v1/tasks", state="announced", limit=OPEN_MAX).json()
        assert len(waiting["items"]) <= OPEN_MAX
        assert waiting["next"] is None
        return
    # Somebody else who holds the network key is heard as before.
    title = f"honest beside {kind}"
    with stranger(agent=1) as honest:
        honest.say("chorus/tasks", "task_announcement", task(title))
        until(lambda: any(item["title"] == title and item["state"] == "completed" for item in mesh.tasks()))

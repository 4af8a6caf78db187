"""Benches of records: puts and gets over twenty nodes, an answer from memory, sealing."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyrage

from bench.figures import Comparison, figures
from bench.processes import go_peers, module, numbers, running
from bench.timing import WARM_UPS, measured
from chorus.core import RoleKeys, open_many, open_sealed, seal, seal_many
from chorus.hub import Hub

NODES = 20
VALUE_BYTES = 1024
# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS = 3
RECORDS = 100
CALLS = 1000
SEALS = 500
BATCH = 2000
# Twenty agents have twenty disks, and the peer keeps its records in memory: with one disk for all the disk
# would be what is measured.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
CACHE_TARGET_US = 20


async def dht() -> list[Comparison]:
    """From Python through the hub, sealed, signed, committed, beside plain ones in memory without a hub."""
    puts, gets, hits, calls = list[float](), list[float](), list[float](), list[float]()
    peer_puts, peer_gets = list[float](), list[float]()
    peer = str(go_peers() / "dht")
    with tempfile.TemporaryDirectory(prefix="chorus-bench-", dir=MEMORY) as folder:
        async with running(*module("stand_ins", "records", f"{NODES} {folder}")) as line:
            near, far = line.split()
            async with await Hub.connect(near, "bench") as writer, await Hub.connect(far, "bench") as reader:
                for turn in range(ROUNDS):
                    values = {n: _value(turn, n) for n in range(-WARM_UPS, RECORDS)}
                    names = {n: hashlib.sha256(value).hexdigest() for n, value in values.items()}

                    puts += await measured(RECORDS, _put(writer, names, values))
                    gets += await measured(RECORDS, _get(reader, names))
                    peer_puts += await numbers(peer, "put", str(RECORDS), str(VALUE_BYTES))
                    peer_gets += await numbers(peer, "get", str(RECORDS), str(VALUE_BYTES))
                hits, calls = await _cache(reader, names[0], values[0])
    what = f"{VALUE_BYTES} B over {NODES} nodes, from Python"
    ours, theirs = "chorus, sealed, signed, from disk", "go-libp2p-kad-dht, plain, no hub"
    call = figures("a hub call of as many bytes", calls)
    return [
        Comparison(f"DHT put, {what}", figures(ours, puts), figures(theirs, peer_puts), 1.0),
        Comparison(f"DHT get, {what}", figures(ours, gets), figures(theirs, peer_gets), 1.0),
        Comparison(
            "DHT get from memory, from Python",
            figures("chorus", hits),
            call,
            (call.p50 + CACHE_TARGET_US) / call.p50,
        ),
    ]


def _put(hub: Hub, names: dict[int, str], values: dict[int, bytes]) -> Callable[[int], Awaitable[object]]:
    return lambda n: hub.dht_put("content", names[n], values[n], role="developer")


def _get(hub: Hub, names: dict[int, str]) -> Callable[[int], Awaitable[object]]:
    return lambda n: hub.dht_get("content", names[n])


async def _cache(hub: Hub, name: str, value: bytes) -> tuple[list[float], list[float]]:
    hits, calls = list[float](), list[float]()
    for _ in range(ROUNDS):
        hits += await measured(CALLS, lambda _: hub.dht_get("content", name))
        # The plainest call of the core that carries as much: what is measured is the way, not the work.
        calls += await measured(CALLS, lambda _: hub.redact(value))
    return hits, calls


def _value(turn: int, n: int) -> bytes:
    return f"{turn} {n} {os.getpid()} ".encode().ljust(VALUE_BYTES, b"x")


def sealing() -> list[Comparison]:
    """A value for two roles sealed and opened, beside pyrage; then many at once beside one after another."""
    keys = RoleKeys(b"a secret for measurements", "tester")
    assert keys.readers("tester") == ["admin", "tester"]
    pair = [pyrage.x25519.Identity.generate() for _ in range(2)]
    recipients = [identity.to_public() for identity in pair]
    plain = b"x" * VALUE_BYTES
    ours, peer = list[float](), list[float]()
    for _ in range(ROUNDS):
        ours += _timed(lambda: open_sealed(keys, seal(keys, "tester", plain)))
        # Theirs, like ours, holds the key of one of the two.
        peer += _timed(lambda: pyrage.decrypt(pyrage.encrypt(plain, recipients), [pair[1]]))
    batch, single = list[float](), list[float]()
    plains = [plain] * BATCH
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        open_many(keys, seal_many(keys, "tester", plains))
        batch.append((time.perf_counter_ns() - started) / 1000 / BATCH)
        started = time.perf_counter_ns()
        for one in plains:
            open_sealed(keys, seal(keys, "tester", one))
        single.append((time.perf_counter_ns() - started) / 1000 / BATCH)
    return [
        Comparison(
            f"seal and open {VALUE_BYTES} B for two roles",
            figures("chorus", ours),
            figures("pyrage", peer),
            1.0,
        ),
        Comparison(
            f"the same, {BATCH} at once, each",
            figures("chorus, all cores", batch),
            figures("chorus, one after another", single),
            0.75,
        ),
    ]


def _timed(once: Callable[[], object]) -> list[float]:
    taken = []
    for number in range(-WARM_UPS, SEALS):
        started = time.perf_counter_ns()
        once()
        if number >= 0:
            taken.append((time.perf_counter_ns() - started) / 1000)
    return taken

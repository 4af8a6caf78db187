"""BACKBEAT over NATS: a real nats-server, and servers that only claim to be one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from chorus.process import metrics
from chorus.testing.nats import Nats

from .conftest import CLUSTER, running, settings_for, until
from .test_backbeat_faults import note
from .test_beat_frames import frame_of

nats = pytest.importorskip("nats", reason="nats-py is not installed: pip install 'chorus-agent[nats]'")
NatsLink = pytest.importorskip("chorus.telemetry.nats_link").NatsLink


async def backbeat_side(server: Nats, taken: list[tuple[str, Any]]) -> Any:
    """A program that beats and takes what comes, as BACKBEAT would."""
    client = await nats.connect(server.url)

    async def take(message: Any) -> None:
        taken.append((message.subject.rpartition(".")[2], json.loads(message.data)))

    await client.subscribe(f"backbeat.{CLUSTER}.status", cb=take)
    await client.subscribe(f"backbeat.{CLUSTER}.operation", cb=take)
    await client.flush()
    return client


def malformed() -> float:
    return metrics.BACKBEAT_FRAMES.labels("malformed")._value.get()


async def test_beats_come_and_claims_and_operations_go(nats_server: Nats) -> None:
    taken: list[tuple[str, Any]] = []
    server = await backbeat_side(nats_server, taken)
    link = NatsLink(nats_server.url, CLUSTER, answer_s=5)
    async with running(settings_for(nats_server.url), link) as backbeat:
        await until(lambda: any(kind == "status" for kind, _ in taken), "no claim came")
        # Garbage first: it is counted, and the next beat is heard.
        before = malformed()
        for data in (b"", b"\xff" * 1000, b"{}", frame_of(tempo_bpm=5000)):
            await server.publish(f"backbeat.{CLUSTER}.beat", data)
        await server.publish(f"backbeat.{CLUSTER}.beat", b"x" * 200_000)
        await server.publish(f"backbeat.{CLUSTER}.beat", frame_of(cluster_id=CLUSTER, beat_index=40))
        await until(lambda: backbeat.beat.source == "pulse", "not in step")
        assert (backbeat.beat.index, malformed()) == (40, before + 4)
        backbeat.take(note("ONE"))
        await until(lambda: any(kind == "operation" for kind, _ in taken), "no operation came")
        await until(lambda: backbeat.health()["ok"], "not well")
    await server.close()


async def test_a_server_that_is_killed_is_found_again(nats_server: Nats) -> None:
    link = NatsLink(nats_server.url, CLUSTER, answer_s=5)
    async with running(settings_for(nats_server.url), link) as backbeat:
        await until(lambda: link._client is not None, "not connected")
        nats_server.kill()
        await until(lambda: link._client is None, "nobody noticed")
        backbeat.take(note("AWAY"))
        nats_server.start()
        taken: list[tuple[str, Any]] = []
        server = await backbeat_side(nats_server, taken)
        backbeat.take(note("BACK"))
        await until(
            lambda: any(body.get("subject", {}).get("task_id") == "BACK" for _, body in taken), "nothing came"
        )
        await server.close()


async def test_a_server_that_stops_answering_is_left(nats_server: Nats) -> None:
    link = NatsLink(nats_server.url, CLUSTER, answer_s=0.5)
    async with running(settings_for(nats_server.url), link) as backbeat:
        await until(lambda: link._client is not None, "not connected")
        nats_server.pause()
        backbeat.take(note("SILENT"))
        await until(lambda: backbeat.send_trouble, "nobody noticed")


INFO = b'INFO {"server_id":"x","max_payload":1000000}\r\n'


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff" * 100_000,
        b"INFO {\r\n",
        b"INFO []\r\n",
        INFO + b"PONG\r\n" + b"x" * 4_000_000,
        INFO + b"PONG\r\nMSG a 1 99999999999999\r\n" + b"x" * 4_000_000,
        INFO + b"PONG\r\n-ERR\r\n-ERR 'Authorization Violation'\r\n",
        INFO + b"PONG\r\nMSG a 77 1\r\nx\r\nHMSG a 1 9 1\r\n",
    ],
    ids=range(9),
)
async def test_a_server_that_is_none_harms_nobody(said: bytes) -> None:
    calls = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.write(said)
        if said:
            await reader.read(1)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, running(settings_for(url), NatsLink(url, CLUSTER, answer_s=0.2)) as backbeat:
        # It is called again and again, and beats go on.
        await until(lambda: calls > 2, "not called again")
        assert backbeat.beat.source == "own"

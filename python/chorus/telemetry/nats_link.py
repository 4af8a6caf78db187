"""BACKBEAT over NATS, by nats-py, which comes with the extra `chorus-agent[nats]`."""

from __future__ import annotations

import asyncio
import contextlib
from math import ceil
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from chorus.telemetry.frames import FRAME_MAX_BYTES
from chorus.telemetry.link import BodyRefused, LinkFailed, Listener
from chorus.telemetry.outgoing import Kind

# To connect, and for the server to say that it has read something.
ANSWER_S: Final = 10.0
# A server that answers no ping is away; two may be under way.
PING_S: Final = 20
LOOK_S: Final = 5.0
CLOSE_S: Final = 1.0
FRAMES_WAITING_MAX: Final = 64
# What a server may send that is not yet a message. A message of others on our subject may be as large as
# servers take by default, 1 MiB; it is dropped, and the connection goes on.
BUFFER_MAX_BYTES: Final = 2 * 1024 * 1024


class _Careful(Parser):
    """nats-py keeps whatever comes until it makes sense, and stops reading in silence at some of what makes
    none. Here both end the connection.
    """

    def __init__(self, client: Client, ended: asyncio.Event) -> None:
        super().__init__(client)
        self._ended = ended

    async def parse(self, data: bytes = b"") -> None:
        """Raises ProtocolError for what is no NATS, and for what is longer than anything that servers say."""
        try:
            await super().parse(data)
            if len(self.buf) > BUFFER_MAX_BYTES or self.needed > BUFFER_MAX_BYTES:
                raise ValueError("longer than this agent reads")
        except Exception as error:
            self.reset()
            self._ended.set()
            raise nats.errors.ProtocolError(f"nats: {type(error).__name__}") from error


class NatsLink:
    """The way to one server, and a cluster's three subjects there."""

    def __init__(self, endpoint: str, cluster_id: str, *, answer_s: float = ANSWER_S) -> None:
        self._endpoint, self._answer_s = endpoint, answer_s
        self._beats = f"backbeat.{cluster_id}.beat"
        self._subjects: dict[Kind, str] = {
            "status": f"backbeat.{cluster_id}.status",
            "operation": f"backbeat.{cluster_id}.operation",
        }
        self._client: Client | None = None
        self._why = "not connected yet"

    async def close(self) -> None:
        """Ends the connection."""
        client, self._client = self._client, None
        if client is not None:
            await _closed(client)

    async def listen(self, listener: Listener) -> None:
        """Connects and hands over what comes on the subject of beats until the connection ends.

        Raises LinkFailed.
        """
        ended = asyncio.Event()

        async def lost(*said: Any) -> None:
            if said:
                self._why = f"{type(said[0]).__name__}: {said[0]}"[:300]
            ended.set()

        async def take(message: Msg) -> None:
            if len(message.data) > FRAME_MAX_BYTES:
                listener.too_large()
            else:
                listener.hear(message.data)

        client = Client()
        client._ps = _Careful(client, ended)
        try:
            async with asyncio.timeout(self._answer_s):
                # Whoever listens connects anew, so that there is one place that waits between two tries.
                await client.connect(
                    self._endpoint,
                    allow_reconnect=False,
                    connect_timeout=ceil(self._answer_s),
                    ping_interval=PING_S,
                    error_cb=lost,
                    disconnected_cb=lost,
                    closed_cb=lost,
                )
                await client.subscribe(self._beats, cb=take, pending_msgs_limit=FRAMES_WAITING_MAX)
                await client.flush()
            self._client = client
            while client.is_connected and not ended.is_set():
                # Not every end is told.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await ended.wait()
        except Exception as error:
            # At what is no NATS the package fails in many ways.
            raise LinkFailed(f"{type(error).__name__}: {error}"[:300]) from None
        finally:
            self._client = None
            await _closed(client)
        raise LinkFailed(self._why)

    async def send(self, kind: Kind, body: bytes) -> None:
        """Publishes one body and waits until the server has read it. Raises LinkFailed and BodyRefused."""
        client = self._client
        if client is None or not client.is_connected:
            raise LinkFailed(self._why)
        if len(body) > client.max_payload:
            raise BodyRefused(f"{len(body)} bytes; the server takes {client.max_payload}")
        try:
            async with asyncio.timeout(self._answer_s):
                await client.publish(self._subjects[kind], body)
                await client.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise LinkFailed(f"{type(error).__name__}: {error}"[:300]) from None


async def _closed(client: Client) -> None:
    """Ends a connection, also one that nats-py could not end in order."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await client.close()
    if client._transport is not None:
        client._transport.close()  # type: ignore[no-untyped-call]
    if (reading := client._reading_task) is not None:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

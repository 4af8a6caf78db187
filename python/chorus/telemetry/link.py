"""The ways to a BACKBEAT server look alike to the client: frames come in, bodies go out."""

from __future__ import annotations

from typing import Protocol

from chorus.telemetry.outgoing import Kind


class LinkFailed(Exception):
    """The server is away or does not answer as it should: worth another try."""


class BodyRefused(Exception):
    """The server does not want this body, however often it is sent."""


class Listener(Protocol):
    """Who hears what the server sends."""

    def hear(self, data: bytes) -> None:
        """Takes one frame, whatever it is."""

    def too_large(self) -> None:
        """A frame was longer than a frame may be, and was left out."""

    def silence_s(self) -> float:
        """How long a living server may say nothing at all."""


class Link(Protocol):
    """One way to the server."""

    async def listen(self, listener: Listener) -> None:
        """Hands over what the server sends as frames until it stops. Raises LinkFailed, or returns."""

    async def send(self, kind: Kind, body: bytes) -> None:
        """Sends one body. Raises LinkFailed and BodyRefused."""

    async def close(self) -> None:
        """Ends all connections."""

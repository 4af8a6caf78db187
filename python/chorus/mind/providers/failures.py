"""What can go wrong between an agent and a model's server, and whether another try may help."""

from __future__ import annotations

from chorus.mind.thinking import ModelAway


class Failed(ModelAway):
    """One try failed in a way that may pass: no connection, no room, a stream that broke off.

    `again`: trying again soon makes sense. `retry_after_s`: how long the server asks to be left alone.
    `status`: what it answered; 0: it did not.
    """

    def __init__(
        self, reason: str, *, again: bool = True, retry_after_s: float | None = None, status: int = 0
    ) -> None:
        super().__init__(reason)
        self.again = again
        self.status = status
        self.retry_after_s = retry_after_s


class Garbled(Exception):
    """The server's answer is not what its protocol says; the text says where it departs."""


class NoTools(Exception):
    """The server says that its model cannot call tools."""


class BadCall(Exception):
    """The server could not read the tool call that its model wrote: something for the model to hear."""

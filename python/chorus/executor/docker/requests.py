"""What a session has been asked and has not answered yet, each with the tokens of its answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

# Takes bytes on the channel's thread.
Collector = Callable[[bytes], None]


def new_token() -> str:
    """What only the session can answer with."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's end as the session reports it; counters are of the container since its start."""

    exit_code: int
    out_of_memory_kills: int
    process_limit_hits: int
    duration_s: float
    # Bytes of output when it ended, of a command with a group of its own; None when it was killed with all.
    size: int | None = None


@dataclass(slots=True)
class Running:
    """A command on its way: both streams say its end, in either order.

    The token `success` is written for code 0 alone, `failure` for every other.
    """

    number: int
    future: asyncio.Future[tuple[int, ...]]
    success: str = field(default_factory=new_token)
    failure: str = field(default_factory=new_token)
    counted: tuple[int, ...] | None = None
    stderr_ended: bool = False
    told: bool = False


@dataclass(slots=True)
class Group(Running):
    """A command with a process group of its own, and no hold of the session's streams.

    `begun` is told the group's id; `live` gets what is written while the file of its output is followed.
    """

    begun: asyncio.Future[int] = field(kw_only=True)
    live: Collector = field(kw_only=True)
    begun_token: str = field(default_factory=new_token)


@dataclass(slots=True)
class Asked:
    """A request that waits for its answer."""

    reply: str
    future: asyncio.Future[tuple[str, ...]]
    token: str = field(default_factory=new_token)

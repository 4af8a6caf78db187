"""Work that ends early when its attempt has to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class StopAsked(Exception):
    """The attempt is to end before this has."""


async def until_set(work: Awaitable[T], asked: asyncio.Event) -> T:
    """The work's result; raises StopAsked, and cancels the work, when the event is set before.

    The result of a future that is done already comes without a turn of the loop.
    """
    doing = asyncio.ensure_future(work)
    if doing.done() and not asked.is_set():
        return doing.result()
    stop = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((doing, stop), return_when=asyncio.FIRST_COMPLETED)
        if asked.is_set():
            raise StopAsked
        return await doing
    finally:
        stop.cancel()
        if not doing.done():
            doing.cancel()
        elif not doing.cancelled():
            doing.exception()  # asked for or not

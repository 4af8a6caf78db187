"""The one place of a process through which all goes that others say: gossip, requests, streams, answers.

Whatever such a thing makes our code raise ends its own handling and nothing more. It is counted by what was
handled and by the error, and logged; the log bounds lines of one kind. What a handler means to say with an
error (a HubError to its caller) is the handler's business and does not come here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

T = TypeVar("T")

What = Literal["gossip", "request", "stream", "event", "answer", "record", "frame"]
Raising = tuple[type[Exception], ...]

log = logging.getLogger(__name__)

# An error's text is for the reader of a log; the rest of it may be a peer's whole message.
ERROR_MAX_CHARS = 300
# What made a loop fail may do so again at once.
LASTING_PAUSE_S = 1.0
# A process without memory is to end, not to stumble from message to message.
FATAL: Raising = (MemoryError,)


def _uncounted(what: str, error: str) -> None:
    """Before a process says where to count."""


# Called with what was handled and the error's class; the process's runner sets it to its metric.
count: Callable[[str, str], None] = _uncounted


def failed(what: What, error: Exception, **fields: Any) -> None:
    """Counts and logs that something was not handled."""
    kind = type(error).__name__
    count(what, kind)
    # The place in our code tells more than the text, and a traceback is far longer: it is for the developer.
    said = f"{kind}: {error}"[:ERROR_MAX_CHARS].encode("utf-8", "replace").decode()
    log.warning(
        "something that was said to this process was not handled",
        extra={"fields": {"what": what, "error": said, "place": _place(error), **fields}},
        exc_info=error if log.isEnabledFor(logging.DEBUG) else None,
    )


def _place(error: Exception) -> str:
    """Where it was raised: the innermost frame."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}"


@contextmanager
def handling(what: What, *, raising: Raising = ()) -> Iterator[None]:
    """Ends at an error and goes on behind the block. What is in `raising`, and cancellation, pass through."""
    try:
        yield
    except (*FATAL, *raising):
        raise
    except Exception as error:
        failed(what, error)


async def each(
    items: AsyncIterable[T],
    handle: Callable[[T], Awaitable[None] | None],
    what: What,
    *,
    raising: Raising = (),
) -> None:
    """Hands every item to `handle`, until there are no more; errors of the iteration itself are raised."""
    async for item in items:
        with handling(what, raising=raising):
            done = handle(item)
            if inspect.isawaitable(done):
                await done


async def lasting(
    work: Callable[[], Awaitable[object]],
    what: What,
    *,
    pause_s: float = LASTING_PAUSE_S,
    raising: Raising = (),
) -> None:
    """Runs a loop that only its cancellation should end: after an error it begins again, a pause later."""
    while True:
        with handling(what, raising=raising):
            await work()
            return
        await asyncio.sleep(pause_s)


async def alone(work: Callable[[], Awaitable[object]], what: What) -> None:
    """Does work that nobody waits for."""
    with handling(what):
        await work()

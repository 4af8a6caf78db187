"""Facts about attempts on their way into the log, through the coordinator: repeated until their outcome is
known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from chorus.hub import Hub, HubError
from chorus.wire.ids import new_id

_TIMEOUT_S = 15.0
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0
# Repeating these changes nothing: the answer is about the entry itself. `refused` and `not_permitted` are
# about this agent, when it is in another mesh than the leader or in none, and it may be a member again.
_FINAL = frozenset({"invalid", "too_large"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a proposal: `accepted` when it took effect, else the table's reason."""

    accepted: bool
    reason: str


async def propose(
    hub: Hub,
    type: str,
    body: Mapping[str, Any],
    *,
    entry_id: str | None = None,
    within_s: float | None = None,
) -> Outcome | None:
    """Proposes until there is an outcome; the one id makes repeats count once.

    None when `within_s` is over.
    """
    head = {"type": type, "id": entry_id or new_id()}
    payload = orjson.dumps(dict(body))
    wait = _RETRY_FIRST_S
    loop = asyncio.get_running_loop()
    ends = None if within_s is None else loop.time() + within_s
    while True:
        left = _TIMEOUT_S if ends is None else min(_TIMEOUT_S, ends - loop.time())
        if left <= 0:
            return None
        try:
            reply = await hub.call_service("coordinator", "table.propose", head, payload, timeout=left)
            return Outcome(bool(reply.head.get("accepted", True)), str(reply.head.get("reason") or ""))
        except HubError as error:
            if error.code in _FINAL:
                return Outcome(False, error.message)
        await asyncio.sleep(wait if ends is None else max(0.0, min(wait, ends - loop.time())))
        wait = min(wait * 2, _RETRY_MAX_S)

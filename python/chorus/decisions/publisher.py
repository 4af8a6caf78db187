"""Brings a signed record to where readers look for it.

Every step may be repeated; the record's hash makes it count once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from chorus.decisions.record import VerifiedRecord, hash_of, verify
from chorus.hub import Hub, HubError
from chorus.wire.messages import DECISIONS

DHT_KIND = "decision"

Enter = Callable[[str, dict[str, Any]], Awaitable[None]]


async def publish(hub: Hub, encoded: bytes, record: dict[str, Any], *, enter: Enter) -> str:
    """Seals the record into the DHT, enters it into the table, announces and logs it; returns its hash.

    `enter(type, body)` proposes an entry and returns once its outcome is known. Raises HubError when the
    DHT or the
    log did not take it: publish again.
    """
    name = hash_of(encoded)
    about = {
        "hash": name,
        "address": record["address"],
        "kind": record["kind"],
        "task_id": record["task_id"],
        "attempt": record["attempt"],
    }
    await hub.dht_put(DHT_KIND, name, encoded, role=record["role"] or None)
    await enter("decision", {**about, "agent": record["agent"]["agent_id"]})
    try:
        await hub.publish(DECISIONS, "decision_published", about)
    except HubError as error:
        # News only: the table lists the record already.
        if error.code in ("closed", "unavailable"):
            raise
    await hub.log_append("decision_published", about)
    return name


async def fetch(hub: Hub, name: str, *, hints: Iterable[str] = ()) -> VerifiedRecord:
    """The record of that hash from the DHT or the peers in `hints`, verified.

    Raises HubError or DecisionError.
    """
    value = await hub.dht_get(DHT_KIND, name, hints=hints)
    return verify(value.payload, expected_hash=name)

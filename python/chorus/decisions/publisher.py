"""Brings a signed record to where readers look for it.

Every step may be repeated; the record's hash makes it count once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson

from chorus.core.log import Log
from chorus.decisions.record import addressed, hash_of, sign
from chorus.decisions.verify import Listed, VerifiedRecord, check_role, verify
from chorus.hub import Hub, HubError
from chorus.wire.messages import DECISIONS

DHT_KIND = "decision"

Enter = Callable[[str, dict[str, Any]], Awaitable[None]]


async def redact_and_sign(hub: Hub, record: dict[str, Any]) -> bytes:
    """The encoded record as it may go out, signed with this agent's key.

    Redacted first: nobody could take a secret out of it later. Raises HubError or DecisionError.
    """
    clean = addressed(orjson.loads(await hub.redact_json(orjson.dumps(record))))

    async def signer(data: bytes) -> str:
        return (await hub.sign(data)).signature

    return await sign(clean, signer)


async def publish(
    hub: Hub, encoded: bytes, record: dict[str, Any], *, enter: Enter, logged_since: int | None = None
) -> str:
    """Seals the record into the DHT, enters it into the table, announces and logs it; returns its hash.

    `enter(type, body)` proposes an entry and returns once its outcome is known. `logged_since` is for a
    repeat: see `log_once`. Raises HubError when the DHT or the log did not take it: publish again.
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
    await enter("decision", {**about, "agent": record["agent"]["agent_id"], "size": len(encoded)})
    try:
        await hub.publish(DECISIONS, "decision_published", about)
    except HubError as error:
        # News only: the table lists the record already.
        if error.code in ("closed", "unavailable"):
            raise
    await log_once(hub, "decision_published", about, since=logged_since)
    return name


async def log_once(hub: Hub, type: str, data: dict[str, Any], *, since: int | None) -> None:
    """Appends to the log what names a record by its `hash`, unless a life before did.

    `since` is the log's length from before the first try; None on that try itself. Raises HubError.
    """
    if since is not None:
        async for entry in Log(hub).entries(since):
            if entry["type"] == type and entry["data"].get("hash") == data["hash"]:
                return
    await hub.log_append(type, data)


async def fetch(
    hub: Hub, name: str, *, listed: Listed | None = None, hints: Iterable[str] = ()
) -> VerifiedRecord:
    """The record of that hash from the DHT or the peers in `hints`, verified.

    `listed` is what the table says of it.
    Raises HubError or DecisionError.
    """
    value = await hub.dht_get(DHT_KIND, name, hints=hints)
    record = verify(value.payload, expected_hash=name, listed=listed)
    check_role(record, value.role)
    return record

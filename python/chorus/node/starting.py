"""How this agent's network starts, as BACKBEAT follows it: core, first peer, first answer of the DHT."""

from __future__ import annotations

import asyncio
from typing import Final

from chorus.hub import Hub, HubError, HubNotFound
from chorus.process import Process
from chorus.telemetry.operations import Operation

# As exact as the durations are.
LOOK_S: Final = 0.25
# A DHT that does not answer yet is asked again.
ASK_AGAIN_S: Final = 2.0


async def follow(process: Process, p2p: Operation) -> None:
    """Ends the start of P2P at the first peer, and the DHT's after that at its first answer."""
    hub, settings = process.hub, process.settings
    p2p.phase("discovering")
    dht = None
    if settings.dht_enabled:
        dht = process.operations.begin("dht_bootstrap", "", "waiting_for_peer")
    while not await _has_peer(hub):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    p2p.end("completed")
    if dht is None:
        return
    dht.phase("querying")
    while not await _answers(hub, settings.peer_id):  # noqa: ASYNC110
        await asyncio.sleep(ASK_AGAIN_S)
    dht.end("completed")


async def _has_peer(hub: Hub) -> bool:
    try:
        return bool((await hub.net_state()).get("peers"))
    except HubError:
        return False


async def _answers(hub: Hub, peer_id: str) -> bool:
    try:
        await hub.dht_get("agent", peer_id)
    except HubNotFound:
        return True  # an answer too: everybody near was asked
    except HubError:
        return False
    return True

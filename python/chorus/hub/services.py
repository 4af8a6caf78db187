"""Which process serves which service of an agent, and what of it peers may ask for.

The node hands this table to the core, which refuses everything else in one place: an offer by another
process, and a peer's request or stream for what is the agent's own affair. What strangers may ask for,
before they are members, the core knows by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """One service: the process that may offer it, and the methods and streams that members may ask for."""

    process: str
    peers: frozenset[str] = frozenset()


SERVICES: Mapping[str, Service] = {
    # The parent: the assignment that counts, and a wish to load it anew.
    "agent": Service("agent"),
    "node": Service("node"),
    "api": Service("api"),
    "election": Service("election"),
    "mesh": Service(
        "election", frozenset({"info", "challenge", "join", "standing", "last", "lease", "remove"})
    ),
    "coordinator": Service(
        "coordinator",
        frozenset(
            {
                "renew",
                "blobs.has",
                "blobs.get",
                "blobs.put",
                "table.index",
                "votes.open",
                "context.choose",
                "hmmm.alert",
                "hmmm.reader",
            }
        ),
    ),
    "executor": Service("executor", frozenset({"award"})),
    "output": Service("executor", frozenset({"artifacts", "events", "logs", "artifact", "keep", "message"})),
    # How the model's process works on a goal in its sandbox: the agent's own affair.
    "session": Service("executor"),
    "mind": Service("mind"),
}

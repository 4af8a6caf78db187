"""The agent's peer id, from its key in the data directory; the core owns the key and makes it once."""

from __future__ import annotations

from pathlib import Path

from chorus.agent.problems import INITIALIZE, StartupError

# Enough of a peer id to tell agents apart when they are listed; the whole id is what counts on the wire.
ID_CHARS = 8


def load_peer_id(path: Path) -> str:
    """The peer id of the key in this file; the first start makes the key."""
    try:
        from chorus.core import Identity
    except ImportError as error:
        raise StartupError(
            f"{INITIALIZE}: the core of CHORUS is not built for this Python ({error}). "
            "Install the wheel, or run scripts/setup.sh in a checkout"
        ) from None
    try:
        return str(Identity.load_or_create(path).peer_id)
    except Exception as error:
        raise StartupError(
            f"{INITIALIZE}: identity key {path}: {error}. "
            "Restore it from a backup, or move it away to become a new agent"
        ) from None


def agent_id_for(peer_id: str) -> str:
    """The agent id of those who chose none."""
    return f"agent-{peer_id[-ID_CHARS:]}"

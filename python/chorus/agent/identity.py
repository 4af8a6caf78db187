"""The agent's peer id, from its key in the data directory; the core owns the key and makes it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from chorus.agent.problems import INITIALIZE, StartupError

# Enough of a peer id to tell agents apart when they are listed; the whole id is what counts on the wire.
ID_CHARS = 8

if TYPE_CHECKING:
    from chorus.core import Identity


def load_peer_id(path: Path) -> str:
    """The peer id of the key in this file; the first start makes the key."""
    return str(_load(path).peer_id)


def load_sign(path: Path) -> Callable[[bytes], bytes]:
    """What signs with the key in this file."""
    return _load(path).sign


def _load(path: Path) -> Identity:
    try:
        from chorus.core import Identity
    except ImportError as error:
        raise StartupError(
            f"{INITIALIZE}: the core of CHORUS is not built for this Python ({error}). "
            "Install the wheel, or run scripts/setup.sh in a checkout"
        ) from None
    try:
        return Identity.load_or_create(path)
    except Exception as error:
        raise StartupError(
            f"{INITIALIZE}: identity key {path}: {error}. "
            "Restore it from a backup, or move it away to become a new agent"
        ) from None


def agent_id_for(peer_id: str) -> str:
    """The agent id of those who chose none."""
    return f"agent-{peer_id[-ID_CHARS:]}"

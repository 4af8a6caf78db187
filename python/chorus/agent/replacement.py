"""Replaces an identity that must vote no longer by a new one; nothing of the old one is destroyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chorus.agent.folders import move_aside
from chorus.agent.problems import INITIALIZE, StartupError
from chorus.config import Paths
from chorus.config.files import write_private
from chorus.process import membership

# What is the old identity's own: its key, its votes and log, the table made from that log, the audit log that
# it signed, and what it still had to say. All else serves the new one too.
_OWN = (
    "core/raft.redb",
    "core/log",
    "table.sqlite",
    "table.sqlite-wal",
    "table.sqlite-shm",
    "executor.sqlite",
    "executor.sqlite-wal",
    "executor.sqlite-shm",
    "curator.sqlite",
    "curator.sqlite-wal",
    "curator.sqlite-shm",
    "identity.key",
)


REASON_MAX_CHARS = 1000


def replace_if_lost(paths: Paths, peer_of_key: Callable[[Path], str]) -> str:
    """Moves the old identity aside when it must not be used again; says so, or "".

    Raises StartupError when the folder does not let it decide or do that.
    """
    try:
        why = _asked_for(paths) or membership.why_lost(paths, peer_of_key)
        if not why:
            return ""
        # Written first: a start after a crash in the middle goes on here.
        write_private(paths.identity_lost, why + "\n")
        kept = move_aside(paths, _OWN, paths.identity_lost)
        paths.identity_lost.unlink()
    except membership.UnreadableVoteFile as error:
        raise StartupError(
            f"{INITIALIZE}: vote file {paths.vote_file}: {error}. Make it readable for this user; if it is "
            "lost, move it away, and this agent gets a new identity"
        ) from None
    except OSError as error:
        raise StartupError(
            f"{INITIALIZE}: this agent's identity must be replaced ({why}), and {error.filename} "
            f"does not let it: {error.strerror}. Make {paths.data} writable for this user"
        ) from None
    return (
        f"this agent has a new identity, as it must not vote under its old one: {why}. "
        f"What it had is in {kept}"
    )


def _asked_for(paths: Paths) -> str:
    """Why a process of this agent has found that the identity must be replaced, if one has."""
    try:
        said = paths.identity_lost.read_text(encoding="utf-8", errors="replace").strip()
        # The file alone asks for it; its words may have been lost with the power.
        return said[:REASON_MAX_CHARS] or "a process of this agent asked for it"
    except FileNotFoundError:
        return ""

"""Ids of sessions and messages: made from what they belong to, so that a restart makes the same ones again.
Pure.
"""

from __future__ import annotations

import hashlib

from chorus.wire.ids import encode

_BYTES = 16


def session_id(task_id: str, attempt: int) -> str:
    """The id of the discussion of one attempt at a goal: the same at every agent."""
    return _made("session", task_id, str(attempt))


def message_id(session: str, peer: str, parent: str, purpose: str) -> str:
    """The id of what a member says in reply to `parent` ("" for the first plan): said again, the same id."""
    return _made("message", session, peer, parent, purpose)


def alert_id(task_id: str, other: str) -> str:
    """The id of the alert about two goals, whichever is named first."""
    return _made("alert", *sorted((task_id, other)))


def _made(*parts: str) -> str:
    text = "\n".join(("chorus/v1/hmmm", *parts))
    return encode(hashlib.sha256(text.encode()).digest()[:_BYTES])

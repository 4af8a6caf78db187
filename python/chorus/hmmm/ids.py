"""Ids of sessions and messages: made from what they belong to, so that a restart makes the same ones again.
Pure.
"""

from __future__ import annotations

import hashlib
from typing import Final

from chorus.wire.ids import encode

_BYTES = 16


def session_id(task_id: str, attempt: int) -> str:
    """The id of the discussion of one attempt at a goal: the same at every agent."""
    return _made("session", task_id, str(attempt))


# What a message may be for: "" is an agent's own word, "end" the owner's conclusion.
PERSON: Final = "person"
END: Final = "end"
_PURPOSES: Final = ("", PERSON, END)


def message_id(session: str, peer: str, parent: str, purpose: str) -> str:
    """The id of what a member says in reply to `parent` ("" for the first plan): said again, the same id."""
    return _made("message", session, peer, parent, purpose)


def is_own(ident: str, session: str, peer: str, parent: str) -> bool:
    """Whether a message's id is one of those that its signer's reply to `parent` may have.

    Of the first message with an id all others count for nothing, so nobody may take somebody else's.
    """
    return any(ident == message_id(session, peer, parent, purpose) for purpose in _PURPOSES)


def alert_id(task_id: str, other: str) -> str:
    """The id of the alert about two goals, whichever is named first."""
    return _made("alert", *sorted((task_id, other)))


def _made(*parts: str) -> str:
    text = "\n".join(("chorus/v1/hmmm", *parts))
    return encode(hashlib.sha256(text.encode()).digest()[:_BYTES])

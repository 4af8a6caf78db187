"""One message of a discussion as a member said it, and the bounds of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from chorus.wire.messages import WORDS_MAX_BYTES, Intent

# What others than the owner may mean by a message. Of plans and escalations only the owner's count.
INTENTS_OF_OTHERS: Final = frozenset({"question", "answer", "update", "objection", "agreement"})

# An update of the owner's that begins so ends the discussion: the outcome's name, then the reason.
_CONCLUSION: Final = re.compile(r"concluded: ([a-z_]{1,32})(?:\n(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Citation:
    """An address, and why it is named."""

    ucxl: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A message. `peer` signed it; `person` is who spoke through that agent, "" when the agent itself did.

    `parent_id` is "" for a message that answers none. `at_ms` is when it came to this agent, in milliseconds
    since 1970; `timestamp` is what its sender wrote.
    """

    message_id: str
    parent_id: str
    peer: str
    agent_id: str
    role: str
    person: str
    intent: Intent
    message: str
    citations: tuple[Citation, ...]
    timestamp: str
    at_ms: int

    @property
    def conclusion(self) -> tuple[str, str] | None:
        """The outcome and its reason, if these words conclude a discussion (when the owner says them)."""
        if self.intent != "update" or self.person:
            return None
        found = _CONCLUSION.fullmatch(self.message)
        return (found[1], found[2] or "") if found else None

    @property
    def answers(self) -> tuple[str, ...]:
        """The ids of the messages that this one answers: its parent, and those it cites."""
        cited = (citation.ucxl.rpartition("/")[2] for citation in self.citations)
        return tuple(dict.fromkeys(ident for ident in (self.parent_id, *cited) if ident))


def concluding(outcome: str, reason: str) -> str:
    """The text by which the owner concludes."""
    return fitted(f"concluded: {outcome}" + (f"\n{reason}" if reason else ""))


def fitted(text: str) -> str:
    """The text cut to what a message holds, visibly."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= WORDS_MAX_BYTES:
        return raw.decode()
    mark = " …"
    return raw[: WORDS_MAX_BYTES - len(mark.encode())].decode("utf-8", "ignore") + mark

"""A member's words as they travel, as they lie on disk, and as the API shows them."""

from __future__ import annotations

from typing import Any

from chorus.coordinator.hmmm.store import Item, SessionRow
from chorus.hmmm.words import Citation, Word
from chorus.wire.messages import HmmmMessage
from chorus.wire.times import rfc3339


def wire_of(session_id: str, word: Word) -> dict[str, Any]:
    """The data of `hmmm.message`."""
    speaker = {"agent_id": word.agent_id, "role": word.role}
    return {
        "session_id": session_id,
        "message_id": word.message_id,
        **({"parent_id": word.parent_id} if word.parent_id else {}),
        "from": speaker | ({"person": word.person} if word.person else {}),
        "message": word.message,
        "intent": word.intent,
        "citations": [{"ucxl": cited.ucxl, "reason": cited.reason} for cited in word.citations],
        "timestamp": word.timestamp,
    }


def word_of(data: dict[str, Any], peer: str, at_ms: int) -> Word:
    """The words in the data of `hmmm.message`. Raises ValidationError."""
    said = HmmmMessage.model_validate(data)
    return Word(
        message_id=said.message_id,
        parent_id=said.parent_id or "",
        peer=peer,
        agent_id=said.speaker.agent_id,
        role=said.speaker.role,
        person=said.speaker.person,
        intent=said.intent,
        message=said.message,
        citations=tuple(Citation(cited.ucxl, cited.reason) for cited in said.citations),
        timestamp=said.timestamp,
        at_ms=at_ms,
    )


def item_view(item: Item) -> dict[str, Any]:
    """One thing of a session."""
    return {"n": item.n, "kind": item.kind, "at": rfc3339(item.at_ms), **item.data}


def session_view(row: SessionRow, names: dict[str, str], record: str | None) -> dict[str, Any]:
    """A session in short. `names`: the agent ids of members by peer; `record`: the address of its record."""
    state = "concluded" if row.outcome else "escalated" if row.escalated else "open"
    return {
        "session_id": row.session_id,
        "task_id": row.task_id,
        "attempt": row.attempt,
        "title": row.title,
        "project": row.project,
        "agent_id": names.get(row.owner, row.owner),
        "participants": [names.get(peer, peer) for peer in row.participants],
        "state": state,
        "outcome": row.outcome or None,
        "reason": row.reason,
        "plan": row.plan,
        "opened_at": rfc3339(row.opened_at),
        "ended_at": None if row.ended_at is None else rfc3339(row.ended_at),
        "record": record,
    }

"""Asks this agent's `mind` for words: what it thinks of a plan, or as the owner how it answers an objection.

What a mind says is as little trusted as any other text: it is read here, or it is no words at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError

from chorus import decisions
from chorus.coordinator.hmmm.forms import wire_of
from chorus.coordinator.hmmm.room import Room
from chorus.coordinator.hmmm.store import SessionRow
from chorus.hmmm.session import Session
from chorus.hmmm.words import INTENTS_OF_OTHERS, Citation, Word
from chorus.hub import HubError
from chorus.wire.messages import CITATIONS_MAX, Cited, Intent

# A mind's answer may take as long as a model does; its own time limit is shorter.
DISCUSS_TIMEOUT_S: Final = 180.0
# What one agent's model reads and writes for one session, estimated; then the agent is silent there.
TOKENS_MAX: Final = 50_000
_CHARS_PER_TOKEN: Final = 4
# A process that is being restarted is back sooner.
AWAY_S: Final = 15.0
AGAIN_S: Final = 0.5
_AWAY: Final = frozenset({"unavailable", "closed"})
_INTENTS_OF_OWNER: Final = frozenset({"proposal", "answer"})


@dataclass(frozen=True, slots=True)
class Thought:
    """What a mind has to say."""

    intent: Intent
    message: str
    citations: tuple[Citation, ...]


class Minds:
    """This agent's mind, and what it may use for each discussion."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._tokens: dict[str, int] = {}

    def forget(self, session_id: str) -> None:
        """A discussion is over."""
        self._tokens.pop(session_id, None)

    async def think(
        self, row: SessionRow, session: Session, about: tuple[Word, ...], *, owner: bool
    ) -> Thought | None:
        """What the mind says to these messages; None when it says nothing, cannot be asked or read."""
        said = await self._ask(row, session, about, owner)
        intent, message = said.get("intent"), said.get("message")
        if not isinstance(intent, str) or not isinstance(message, str) or not message.strip():
            return None
        if intent not in (_INTENTS_OF_OWNER if owner else INTENTS_OF_OTHERS):
            return None
        if owner:
            cited = [Citation(_address(row, word), f"answers this {word.intent}") for word in about]
        else:
            cited = _repeated(row, session, said) if intent == "objection" else []
        cites = (*cited, *_citations(said.get("citations")))
        return Thought(intent, message, cites[:CITATIONS_MAX])  # type: ignore[arg-type]

    async def _ask(
        self, row: SessionRow, session: Session, about: tuple[Word, ...], owner: bool
    ) -> dict[str, Any]:
        goal = self._room.goal(row.session_id)
        if goal is None or session.plan is None:
            return {}
        head = {
            "session": {
                "session_id": row.session_id,
                "owner": owner,
                "plan": session.plan.message,
                "messages": [wire_of(row.session_id, word) for word in session.words],
                "answering": [word.message_id for word in about],
            },
            "task": goal.view(),
            "role": self._room.process.assignments.current.role,
        }
        spent = self._tokens.get(row.session_id, 0) + len(orjson.dumps(head)) // _CHARS_PER_TOKEN
        if spent > TOKENS_MAX:
            self._room.process.log.info("no more tokens for this discussion", session=row.session_id)
            return {}
        self._tokens[row.session_id] = spent
        reply = await self._answer(row, head)
        self._tokens[row.session_id] += len(str(reply.get("message") or "")) // _CHARS_PER_TOKEN
        return reply

    async def _answer(self, row: SessionRow, head: dict[str, Any]) -> dict[str, Any]:
        """What the mind answers; asked again for a while when it is away, as one that is restarted is."""
        loop = asyncio.get_running_loop()
        until = loop.time() + AWAY_S
        while True:
            try:
                reply = await self._room.hub.call_service("mind", "discuss", head, timeout=DISCUSS_TIMEOUT_S)
            except HubError as error:
                if error.code not in _AWAY or loop.time() >= until:
                    log = self._room.process.log
                    log.info("the mind has no words", session=row.session_id, error=str(error))
                    return {}
                await asyncio.sleep(AGAIN_S)
            else:
                return reply.head


def _address(row: SessionRow, word: Word) -> str:
    """The address by which a citation names a message: its last part is the message's id."""
    agent, role = decisions.component(word.agent_id), decisions.component(word.role or "agent")
    project = decisions.component(row.project or "chorus")
    return f"ucxl://{agent}:{role}@{project}:{row.task_id}/*^/{row.attempt}/discussion/{word.message_id}"


def _repeated(row: SessionRow, session: Session, said: dict[str, Any]) -> list[Citation]:
    """The earlier objection that a mind says that it makes again."""
    ident = said.get("repeats")
    word = session.word(ident) if isinstance(ident, str) else None
    if word is None or word.intent != "objection":
        return []
    return [Citation(_address(row, word), "makes this objection again")]


def _citations(said: Any) -> tuple[Citation, ...]:
    """What a mind cites, as far as it can be read."""
    found: list[Citation] = []
    for item in said[:CITATIONS_MAX] if isinstance(said, list) else ():
        with contextlib.suppress(ValidationError):
            cited = Cited.model_validate(item)
            found.append(Citation(cited.ucxl, cited.reason))
    return tuple(found)

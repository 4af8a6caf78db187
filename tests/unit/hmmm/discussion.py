"""Words and sessions for tests, and several machines that exchange them over a bad network."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from chorus.hmmm.ids import message_id
from chorus.hmmm.session import HOPS_MAX, Conclude, Escalate, Session, Terms, Think, Wait
from chorus.hmmm.words import Citation, Word, concluding
from chorus.wire.messages import Intent

ID = "S" * 26
PERIOD_MS = 30_000
ESCALATION_MS = 600_000


def terms(*participants: str, owner: str = "o") -> Terms:
    return Terms(owner, participants, PERIOD_MS, ESCALATION_MS)


def word(
    peer: str,
    intent: Intent,
    parent: Word | None = None,
    *,
    person: str = "",
    message: str = "",
    cites: tuple[Word, ...] = (),
    at: int = 0,
    purpose: str = "",
) -> Word:
    parent_id = parent.message_id if parent is not None else ""
    return Word(
        message_id=message_id(ID, peer, parent_id, purpose or f"{intent}{person}"),
        parent_id=parent_id,
        peer=peer,
        agent_id=f"agent-{peer}",
        role="",
        person=person,
        intent=intent,
        message=message or intent,
        citations=tuple(Citation(f"ucxl://a:b@c:d/*^/1/discussion/{cited.message_id}") for cited in cites),
        timestamp="",
        at_ms=at,
    )


def said(session: Session, *words: Word) -> Session:
    """The session after these, each of which counts."""
    for one in words:
        assert session.take(one) == [one], one
    return session


class Machine:
    """One agent's side of a discussion: its session, and a mind that throws dice."""

    def __init__(self, peer: str, made: Terms, rng: random.Random) -> None:
        self.peer, self.rng = peer, rng
        self.session = Session(made)
        self.sent: dict[str, int] = {}

    def take(self, one: Word, now: int) -> None:
        self.session.take(replace(one, at_ms=now))

    def say(self, now: int, intent: Intent, parent: Word | None, **more: Any) -> list[Word]:
        one = word(self.peer, intent, parent, at=now, **more)
        self.session.take(one)
        return [one] if self.session.word(one.message_id) else []

    def act(self, now: int) -> list[Word]:
        """What the agent says now."""
        if self.peer == self.session.terms.owner:
            return self._lead(now)
        asked = self.session.asked(self.peer)
        if asked is None or self.rng.random() < 0.2:
            return []
        intent: Intent = self.rng.choice(["agreement", "agreement", "objection", "question", "update"])
        objections = [one for one in self.session.words if one.intent == "objection"]
        again = tuple(self.rng.sample(objections, k=min(len(objections), self.rng.choice([0, 0, 1]))))
        return self.say(now, intent, asked, cites=again)

    def _lead(self, now: int) -> list[Word]:
        session = self.session
        if session.plan is None:
            return self.say(now, "proposal", None)
        if session.over:
            return []
        match session.step(now):
            case Wait():
                return []
            case Think(about):
                if self.rng.random() < 0.2:
                    session.give_up(about)
                    return []
                intent: Intent = self.rng.choice(["proposal", "answer"])
                return self.say(now, intent, about[0], cites=about[1:])
            case Escalate(about, _):
                return self.say(now, "escalation", about)
            case Conclude(outcome, reason):
                return self.say(
                    now, "update", session.plan, message=concluding(outcome, reason), purpose="end"
                )

    def again(self) -> list[Word]:
        """Its own words that may still be published again."""
        mine = [one for one in self.session.words if one.peer == self.peer]
        chosen = [one for one in mine if self.sent.get(one.message_id, 0) < HOPS_MAX]
        for one in chosen:
            self.sent[one.message_id] = self.sent.get(one.message_id, 0) + 1
        return chosen

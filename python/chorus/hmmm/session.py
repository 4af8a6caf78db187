"""The discussion of one attempt's plan as a machine: what counts of what is said, and what is due next.

plan --agreement of all, or the period passed--> concluded
plan --objection--> the owner thinks --> a new plan that cites it, or an answer with a reason
plan --a second objection to the same point, one that has no answer, or too much said--> escalated
escalated --a person's word, or the time passed--> concluded

Pure: it holds what was said, and times in milliseconds are passed in. Every agent that hears a discussion
keeps one; only the owner's decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chorus.hmmm.words import INTENTS_OF_OTHERS, Word

# Before the discussion goes to a person, or goes on with the plan.
WORDS_MAX: Final = 10
LASTS_MAX_MS: Final = 30 * 60 * 1000
# With the escalation, people's words on it, the last plan and the conclusion.
WORDS_MAX_IN_ALL: Final = 16
# Words whose parent has not come yet.
HELD_MAX: Final = 16
# A message may be published again by its author so often (`hop_count`), for those that missed it.
HOPS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """Who discusses and for how long. `participants` are the peers that can answer, without the owner."""

    owner: str
    participants: tuple[str, ...]
    period_ms: int
    escalation_ms: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is due before `until_ms`, unless somebody speaks."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Think:
    """The owner is to answer these: with a new plan, or with a reason."""

    about: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Escalate:
    """A person is to be asked about `about`."""

    about: Word
    reason: str


@dataclass(frozen=True, slots=True)
class Conclude:
    """The discussion is over."""

    outcome: str
    reason: str


Step = Wait | Think | Escalate | Conclude


class Session:
    """What was said, in the order in which it came here, and what follows from it."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.words: list[Word] = []
        self.plan: Word | None = None
        self.escalation: Word | None = None
        # What a person said to the escalation.
        self.person: Word | None = None
        self.outcome = ""
        self.reason = ""
        self._known: dict[str, Word] = {}
        self._replies: set[tuple[str, str]] = set()
        self._held: list[Word] = []
        self._agreed: set[str] = set()
        self._open: dict[str, Word] = {}
        # Objections that the owner answered, with a new plan or a reason.
        self._answered: set[str] = set()
        # The first objection to a point that had its answer.
        self._repeated: Word | None = None
        # What the owner thought about without result.
        self._given_up: set[str] = set()
        self._since_ms = 0

    @property
    def over(self) -> bool:
        """Whether it is concluded."""
        return bool(self.outcome)

    @property
    def full(self) -> bool:
        """Whether so much was said that a person is asked, or the plan is gone on with."""
        return len(self.words) >= WORDS_MAX

    def word(self, message_id: str) -> Word | None:
        """A message that counts, by id."""
        return self._known.get(message_id)

    def replied(self, peer: str, parent_id: str) -> bool:
        """Whether a member has said its one reply to a message."""
        return (parent_id, peer) in self._replies

    def take(self, word: Word) -> list[Word]:
        """The words that count now, in order: this one, those that waited for it, or none.

        What is repeated, comes too late, or is one reply too many counts for nothing. What answers a message
        that has not come yet waits for it.
        """
        if word.message_id in self._known or self._refuses(word):
            return []
        if word.parent_id and word.parent_id not in self._known and not self._concludes(word):
            self._hold(word)
            return []
        if not word.parent_id and not self._may_begin(word):
            return []
        self._count(word)
        counted = [word]
        waiting, self._held = self._held, []
        for held in waiting:
            counted += self.take(held)
        return counted

    def _hold(self, word: Word) -> None:
        if len(self._held) < HELD_MAX and all(held.message_id != word.message_id for held in self._held):
            self._held.append(word)

    def _may_begin(self, word: Word) -> bool:
        """Only the owner's first plan answers nothing."""
        return self.plan is None and self._is_owners(word) and word.intent == "proposal"

    def _refuses(self, word: Word) -> bool:
        if self.over:
            return True
        if self._concludes(word):
            return False
        if len(self.words) >= WORDS_MAX_IN_ALL or (word.parent_id, word.peer) in self._replies:
            return True
        if self._is_owners(word):
            if word.intent == "escalation":
                return self.escalation is not None
            return self.full and self.escalation is None
        if word.intent not in INTENTS_OF_OTHERS:
            return True
        if self.escalation is not None:
            # From here on a person's word is waited for, and one is enough.
            return not word.person or self.person is not None
        return self.full

    def _is_owners(self, word: Word) -> bool:
        return word.peer == self.terms.owner and not word.person

    def _concludes(self, word: Word) -> bool:
        return self._is_owners(word) and word.conclusion is not None

    def _count(self, word: Word) -> None:
        self.words.append(word)
        self._known[word.message_id] = word
        if self._concludes(word) and (conclusion := word.conclusion) is not None:
            # plan, escalated -> concluded
            self.outcome, self.reason = conclusion
            return
        self._replies.add((word.parent_id, word.peer))
        if self._is_owners(word):
            self._count_owners(word)
        elif self.escalation is not None:
            self.person = word
        elif self._is_about_plan(word) or self._repeats(word):
            self._count_others(word)

    def _count_owners(self, word: Word) -> None:
        if word.intent == "escalation":
            # plan -> escalated
            self.escalation = word
            return
        if word.intent not in ("proposal", "answer"):
            return
        for ident in word.answers:
            objection = self._open.pop(ident, None)
            if objection is not None and objection.intent == "objection":
                self._answered.add(ident)
        self._since_ms = word.at_ms
        if word.intent == "proposal":
            # Another plan: whoever agreed, agreed to the one before; what was said of that one is settled.
            self.plan = word
            self._agreed.clear()
            self._open.clear()

    def _count_others(self, word: Word) -> None:
        self._agreed.discard(word.peer)
        if word.intent == "agreement":
            self._agreed.add(word.peer)
        elif word.intent == "question":
            self._open[word.message_id] = word
        elif word.intent == "objection":
            self._open[word.message_id] = word
            if self._repeats(word):
                self._repeated = self._repeated or word

    def _repeats(self, word: Word) -> bool:
        """Whether it objects to a point that the owner answered before.

        It cites an objection to that point, or replies to one, to its answer, or to what was said below them.
        A reply to a plan is a new point, also where that plan came of an objection.
        """
        seen: Word | None = word if word.intent == "objection" else None
        while seen is not None and seen.intent != "proposal":
            if any(ident in self._answered for ident in seen.answers):
                return True
            seen = self._known.get(seen.parent_id)
        return False

    def _is_about_plan(self, word: Word) -> bool:
        """Whether it answers the present plan, or what was said of it."""
        seen: Word | None = word
        while seen is not None and seen.parent_id:
            if self.plan is not None and seen.parent_id == self.plan.message_id:
                return True
            seen = self._known.get(seen.parent_id)
        return False

    # The owner

    def step(self, now_ms: int) -> Step:
        """What is due, on the owner's agent, while it is not over and there is a plan."""
        assert self.plan is not None
        if self.escalation is not None:
            return self._step_escalated(self.escalation, now_ms)
        if self._repeated is not None:
            return Escalate(self._repeated, "a second objection to the same point")
        too_long = now_ms >= self.words[0].at_ms + LASTS_MAX_MS
        objections = [word for word in self._open.values() if word.intent == "objection"]
        if objections:
            if self.full:
                return Escalate(objections[0], f"{WORDS_MAX} messages, and an objection is open")
            if too_long:
                return Escalate(objections[0], f"{LASTS_MAX_MS // 60_000} minutes, and an objection is open")
            if any(word.message_id in self._given_up for word in objections):
                return Escalate(objections[0], "the owner has no answer to an objection")
            return Think(tuple(objections))
        can_answer = set(self.terms.participants)
        if not can_answer:
            return Conclude("alone", "nobody could answer")
        agreed = len(can_answer & self._agreed)
        if agreed == len(can_answer):
            return Conclude("unanimous", f"all {agreed} who could answer agreed")
        questions = [word for word in self._open.values() if word.message_id not in self._given_up]
        if questions and not self.full and not too_long:
            return Think(tuple(questions))
        until = self._since_ms + self.terms.period_ms
        if now_ms < until and not self.full and not too_long:
            return Wait(min(until, self.words[0].at_ms + LASTS_MAX_MS))
        said = f"{agreed} of {len(can_answer)} who could answer agreed, nobody's objection is open"
        return Conclude("agreed" if agreed * 2 > len(can_answer) else "period", said)

    def _step_escalated(self, escalation: Word, now_ms: int) -> Step:
        if self.person is not None:
            unanswered = not self.replied(self.terms.owner, self.person.message_id)
            wants_more = self.person.intent != "agreement" and self.person.message_id not in self._given_up
            if unanswered and wants_more:
                return Think((self.person,))
            return Conclude("answered", f"{self.person.person} answered through {self.person.agent_id}")
        until = escalation.at_ms + self.terms.escalation_ms
        if now_ms < until:
            return Wait(until)
        return Conclude("timeout", "no person answered in time; the owner goes on with its plan")

    def give_up(self, about: tuple[Word, ...]) -> None:
        """The owner's mind had nothing to say about these."""
        self._given_up.update(word.message_id for word in about)

    # Those who can answer

    def asked(self, peer: str) -> Word | None:
        """The owner's words that a participant is to answer now: the plan, or an answer to its own words."""
        if self.over or self.escalation is not None or self.full or self.plan is None:
            return None
        if peer not in self.terms.participants:
            return None
        for word in reversed(self.words):
            if not self._is_owners(word) or not (word is self.plan or self._is_about_plan(word)):
                continue
            mine = any((said := self._known.get(i)) is not None and said.peer == peer for i in word.answers)
            if (word is self.plan or mine) and not self.replied(peer, word.message_id):
                return word
        return None

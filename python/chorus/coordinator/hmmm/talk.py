"""The discussions of plans: hears what members say, answers for this agent, and leads those that it owns.

What is said is on disk before it is published or answered to anybody, under an id that a repeat makes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from chorus.coordinator.hmmm.forms import wire_of, word_of
from chorus.coordinator.hmmm.minds import Minds
from chorus.coordinator.hmmm.recording import Recording
from chorus.coordinator.hmmm.room import Goal, Room
from chorus.coordinator.hmmm.store import Item, SessionRow
from chorus.hmmm.ids import END, PERSON, is_own, message_id
from chorus.hmmm.session import HOPS_MAX, Conclude, Escalate, Session, Terms, Think, Wait
from chorus.hmmm.words import INTENTS_OF_OTHERS, Citation, Word, concluding
from chorus.hub import HubError, HubInvalid, HubRefused, HubTooLarge, Message, guard
from chorus.process import metrics
from chorus.wire.messages import META_DISCUSSION, WORDS_MAX_BYTES, Intent

# A message that came before its attempt was known here, or its session's plan.
EARLY_MAX: Final = 64
EARLY_KEPT_MS: Final = 60_000
# The outcome of a discussion whose attempt ended before it did, or is known no longer.
ENDED: Final = "ended"


class Talk:
    """The live discussions of this agent."""

    def __init__(self, room: Room, recording: Recording) -> None:
        self._room, self._recording = room, recording
        self._live: dict[str, Session] = {}
        self._thinking: dict[str, asyncio.Task[None]] = {}
        self._minds = Minds(room)
        # Messages that this agent's mind had nothing to say to, by session.
        self._silent: set[tuple[str, str]] = set()
        self._early: dict[str, Message] = {}

    def resume(self) -> None:
        """What an earlier life of this process left open."""
        for row in self._room.file.open_sessions():
            self._session(row)
            if row.owner == self._room.hub.peer_id:
                self._follow(row)

    def close(self) -> None:
        """Stops thinking."""
        for task in self._thinking.values():
            task.cancel()

    # Sessions

    def live(self, row: SessionRow) -> Session:
        """A session as it is now, made of what was said in it."""
        return self._session(row)

    def _session(self, row: SessionRow) -> Session:
        session = self._live.get(row.session_id)
        if session is None:
            session = Session(Terms(row.owner, row.participants, row.period_ms, row.escalation_ms))
            for item in self._room.file.items(row.session_id, kind="message"):
                at_ms = min(item.at_ms, self._room.now_ms())
                session.take(word_of(item.data, str(item.data["peer"]), at_ms))
            if not row.outcome:
                self._live[row.session_id] = session
                # Also when an earlier life of this process ended before it did so.
                self._describe(row, session)
        return session

    def _describe(self, row: SessionRow, session: Session) -> None:
        plan = session.plan.message if session.plan is not None else ""
        self._room.file.describe(row.session_id, plan, session.escalation is not None)

    def open(self, goal: Goal, plan: str, readers: Collection[str] = ()) -> str:
        """The owner's plan opens the discussion; a repeat changes nothing. Returns the session's id.

        At the peers in `readers` a person reads along.
        """
        row = self._room.ensure(goal, readers)
        if self._session(row).plan is None and not row.outcome:
            self._follow(row)
            self._say(row, "proposal", None, plan)
        return row.session_id

    def _follow(self, row: SessionRow) -> None:
        """BACKBEAT follows a discussion that this agent owns, from its opening to its record."""
        age_s = (self._room.now_ms() - row.opened_at) / 1000
        self._room.process.operations.begin(
            "hmmm_session",
            row.session_id,
            "discussing",
            age_s=age_s,
            task_id=row.task_id,
            attempt=row.attempt,
        )

    # What others say

    def hear(self, message: Message) -> None:
        """A message of a discussion. Raises ValidationError for what is none."""
        word = word_of(message.data, message.sender, self._room.now_ms())
        ident = str(message.data["session_id"])
        member = self._room.member(message.sender)
        known = member is not None and member.agent_id == word.agent_id
        if member is None or not known or not is_own(word.message_id, ident, word.peer, word.parent_id):
            # Only members' words count, and each under its own name and id.
            metrics.HMMM_MESSAGES.labels("foreign").inc()
            return
        row = self._room.file.session(ident)
        if row is None:
            goal = self._room.goal(ident)
            if goal is None:
                self._keep_early(ident, message)
                return
            row = self._room.ensure(goal)
        if row.outcome:
            return
        session = self._session(row)
        if session.word(word.message_id) is not None:
            self._again(row, session, word, message)
            return
        for one in session.take(self._cleaned(word, member.role)):
            self._keep(row, one)

    def _keep_early(self, ident: str, message: Message) -> None:
        """The table here may be a moment behind."""
        if len(self._early) >= EARLY_MAX:
            del self._early[next(iter(self._early))]
        self._early[message.id] = message

    def hear_early(self) -> None:
        """Tries again what came before its attempt was known, now that the table has moved on."""
        early, self._early = self._early, {}
        for message in early.values():
            if self._room.goal(str(message.data["session_id"])) is not None:
                with guard.handling("gossip"):
                    self.hear(message)
            elif self._room.now_ms() - message.timestamp_ms < EARLY_KEPT_MS:
                self._early[message.id] = message

    def _cleaned(self, word: Word, role: str) -> Word:
        return replace(
            word,
            role=role,
            person=self._room.clean(word.person)[:128],
            message=self._room.clean(word.message),
            citations=self._clean_cites(word.citations),
        )

    def _clean_cites(self, cited: tuple[Citation, ...]) -> tuple[Citation, ...]:
        return tuple(Citation(self._room.clean(one.ucxl), self._room.clean(one.reason)) for one in cited)

    def _again(self, row: SessionRow, session: Session, word: Word, message: Message) -> None:
        """Who says something again has perhaps missed the reply to it."""
        if word.peer != row.owner:
            return
        for item in self._room.file.items(row.session_id, kind="message"):
            mine = item.published is not None and item.data.get("parent_id") == word.message_id
            if mine and item.published is not None and 0 < item.published <= HOPS_MAX:
                self._room.process.log.debug("saying again what was missed", message_id=item.id)
                self._publishing(item)

    # What this agent says

    def say(self, row: SessionRow, person: str, text: str, intent: Intent | None, parent_id: str) -> Item:
        """A person speaks through this agent. Raises HubRefused with the reason when that does not count."""
        session = self._session(row)
        if row.outcome or session.over:
            raise HubRefused(f"the discussion is over: {row.outcome or session.outcome}")
        if session.plan is None:
            raise HubRefused("there is no plan yet to say something to")
        if len(text.encode("utf-8", "replace")) > WORDS_MAX_BYTES:
            raise HubRefused(f"message: at most {WORDS_MAX_BYTES} bytes")
        parent = session.escalation or session.plan
        if parent_id:
            named = session.word(parent_id)
            if named is None:
                raise HubRefused(f"parent_id: no message {parent_id} was heard in this discussion")
            parent = named
        intent = intent or ("update" if session.escalation is None else "answer")
        if intent not in INTENTS_OF_OTHERS:
            raise HubRefused(f"intent: {intent} is the owner's; say {', '.join(sorted(INTENTS_OF_OTHERS))}")
        item = self._say(row, intent, parent, text, person=person)
        if item is not None:
            return item
        ident = message_id(row.session_id, self._room.hub.peer_id, parent.message_id, PERSON)
        known = self._room.file.item(row.session_id, "message", ident)
        if known is not None and known.data["message"] == self._room.clean(text):
            return known
        if session.replied(self._room.hub.peer_id, parent.message_id):
            raise HubRefused(f"this agent has replied to message {parent.message_id} already")
        raise HubRefused("nothing more is taken in this discussion now")

    def _say(
        self,
        row: SessionRow,
        intent: Intent,
        parent: Word | None,
        text: str,
        *,
        person: str = "",
        cites: tuple[Citation, ...] = (),
        purpose: str = "",
    ) -> Item | None:
        """Says something, on disk first; None when it does not count (said before, or too late)."""
        room = self._room
        peer, parent_id = room.hub.peer_id, parent.message_id if parent is not None else ""
        process = room.process
        word = Word(
            message_id=message_id(row.session_id, peer, parent_id, purpose or (PERSON if person else "")),
            parent_id=parent_id,
            peer=peer,
            agent_id=process.settings.agent_id,
            role=process.assignments.current.role,
            person=room.clean(person)[:128],
            intent=intent,
            message=room.clean(text),
            citations=self._clean_cites(cites),
            timestamp=room.stamp(),
            at_ms=room.now_ms(),
        )
        kept = None
        for one in self._session(row).take(word):
            kept = self._keep(row, one, own=one is word) or kept
        return kept

    def _keep(self, row: SessionRow, word: Word, *, own: bool = False) -> Item | None:
        room = self._room
        data = {**wire_of(row.session_id, word), "peer": word.peer}
        # Before it is on disk nobody is told.
        item = room.file.add(row.session_id, "message", word.message_id, data, word.at_ms, own=own)
        metrics.HMMM_MESSAGES.labels("said" if own else "heard").inc()
        session = self._session(row)
        self._describe(row, session)
        if session.over:
            self._concluded(row, session)
        if own:
            about = {"session_id": row.session_id, "message_id": word.message_id, "intent": word.intent}
            room.notes.write("hmmm_message", {**about, "person": word.person})
        room.tell(row.session_id)
        return item

    def _concluded(self, row: SessionRow, session: Session) -> None:
        room = self._room
        if row.owner == room.hub.peer_id:
            # The record first: a session that is concluded has one to be published.
            self._recording.discussion(row, session)
            metrics.HMMM_SESSIONS.labels(session.outcome).inc()
            room.process.operations.of("hmmm_session", row.session_id).phase("recording")
        room.file.conclude(row.session_id, session.outcome, session.reason, room.now_ms())
        self._forget(row.session_id)

    def _forget(self, ident: str) -> None:
        self._live.pop(ident, None)
        self._minds.forget(ident)
        self._silent = {key for key in self._silent if key[0] != ident}

    # Publishing

    async def publish(self) -> None:
        """Publishes what is on disk and was not published yet."""
        for item in self._room.file.unpublished():
            try:
                await self._publish(item)
            except (HubInvalid, HubRefused, HubTooLarge) as error:
                # The core would say so every time, and what comes after it is to be heard.
                self._room.process.log.warning("a message is not published", error=str(error))
                self._room.file.published(item)

    def _publishing(self, item: Item) -> None:
        async def work() -> None:
            with contextlib.suppress(HubError):
                await self._publish(item)

        self._room.spawn(work())

    async def _publish(self, item: Item) -> None:
        room = self._room
        data = {name: value for name, value in item.data.items() if name != "peer"}
        hop = min(item.published or 0, HOPS_MAX)
        await room.hub.publish(
            META_DISCUSSION, "hmmm.message", data, hop_count=hop or None, thread_id=item.session_id
        )
        if item.data["intent"] == "escalation" and not hop:
            await self._trigger(item)
        room.file.published(item)

    async def _trigger(self, item: Item) -> None:
        row = self._room.file.session(item.session_id)
        if row is None:
            return
        said = {
            "session_id": row.session_id,
            "message_id": item.id,
            "task_id": row.task_id,
            "attempt": row.attempt,
            "from": self._room.speaker(),
            "reason": item.data["message"],
            "timestamp": item.data["timestamp"],
        }
        await self._room.hub.publish(
            META_DISCUSSION, "escalation_trigger", said, priority="high", thread_id=row.session_id
        )

    # Turns

    async def attend(self) -> int | None:
        """Does what is due in every open session; when the next thing is due, in milliseconds since 1970."""
        due: list[int] = []
        for row in self._room.file.open_sessions():
            with guard.handling("gossip"):
                until = self._attend(row)
                if until is not None:
                    due.append(until)
        return min(due, default=None)

    def _attend(self, row: SessionRow) -> int | None:
        session = self._session(row)
        own = row.owner == self._room.hub.peer_id
        if session.over:
            # An earlier life of this process ended between the last message and this.
            self._concluded(row, session)
            return None
        if self._room.goal(row.session_id) is None:
            if reason := self._room.ending(row):
                self._end(row, session, own, reason)
            return None
        if row.session_id in self._thinking or session.plan is None:
            return None
        if own:
            return self._lead(row, session)
        asked = session.asked(self._room.hub.peer_id)
        if asked is not None and (row.session_id, asked.message_id) not in self._silent:
            self._think(row, session, (asked,), owner=False)
        return None

    def _end(self, row: SessionRow, session: Session, own: bool, reason: str) -> None:
        if own and session.plan is not None:
            text = concluding(ENDED, reason)
            self._say(row, "update", session.plan, text, purpose=END)
        else:
            self._room.file.conclude(row.session_id, ENDED, reason, self._room.now_ms())
            self._forget(row.session_id)
        self._room.tell(row.session_id)

    def _lead(self, row: SessionRow, session: Session) -> int | None:
        assert session.plan is not None
        match session.step(self._room.now_ms()):
            case Wait(until):
                return min(until, self._repeat(row, session) or until)
            case Think(about):
                self._room.process.operations.of("hmmm_session", row.session_id).phase("discussing")
                self._think(row, session, about, owner=True)
            case Escalate(about, reason):
                self._room.process.operations.of("hmmm_session", row.session_id).phase("escalated")
                asks = f"A person is asked: {reason}.\nThe objection: {about.message}"
                self._say(row, "escalation", about, f"{asks}\nThe plan: {session.plan.message}")
                return self._room.now_ms()
            case Conclude(outcome, reason):
                self._say(row, "update", session.plan, concluding(outcome, reason), purpose=END)
        return None

    def _repeat(self, row: SessionRow, session: Session) -> int | None:
        """Says the owner's newest words again while somebody has not replied; when the next time is."""
        newest = next((w for w in reversed(session.words) if w.peer == row.owner and not w.person), None)
        item = self._room.file.item(row.session_id, "message", newest.message_id) if newest else None
        if newest is None or item is None or not item.published or item.published > HOPS_MAX:
            return None
        at = newest.at_ms + row.period_ms * item.published // (HOPS_MAX + 1)
        if self._room.now_ms() >= at:
            self._publishing(item)
            return None
        return at

    # The mind

    def _think(self, row: SessionRow, session: Session, about: tuple[Word, ...], *, owner: bool) -> None:
        async def work() -> None:
            said = False
            try:
                with guard.handling("answer"):
                    said = await self._answer(row, session, about, owner)
            finally:
                self._thinking.pop(row.session_id, None)
            if not said and owner:
                session.give_up(about)
            elif not said:
                # Silence is an answer too: the mind is not asked again for this message.
                self._silent.add((row.session_id, about[0].message_id))
            self._room.spoken.set()

        self._thinking[row.session_id] = asyncio.create_task(work())

    async def _answer(self, row: SessionRow, session: Session, about: tuple[Word, ...], owner: bool) -> bool:
        """Has the mind answer these; whether it did."""
        thought = await self._minds.think(row, session, about, owner=owner)
        if thought is None or session is not self._live.get(row.session_id):
            return False
        said = self._say(row, thought.intent, about[0], thought.message, cites=thought.citations)
        return said is not None

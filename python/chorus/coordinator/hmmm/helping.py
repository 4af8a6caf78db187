"""Help for a run that is stuck: its agent asks, the fittest few members that have a mind advise."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from chorus.coordinator.hmmm.recording import Recording
from chorus.coordinator.hmmm.room import Goal, Room
from chorus.coordinator.hmmm.store import Item
from chorus.hmmm.ids import message_id
from chorus.hmmm.session import HOPS_MAX
from chorus.hmmm.words import fitted
from chorus.hub import HubError, Message
from chorus.process import metrics
from chorus.wire.counts import counted
from chorus.wire.messages import HELPERS_MAX, META_DISCUSSION, TaskHelpRequest, TaskHelpResponse

# A stuck run waits no longer; in between the question is asked again of those that may have missed it.
HELP_WAIT_S: Final = 60.0
ASK_AGAIN_S: Final = HELP_WAIT_S / (HOPS_MAX + 1)
ADVISE_TIMEOUT_S: Final = HELP_WAIT_S
# Questions that one run may ask: each costs the helpers a call of their models.
QUESTIONS_MAX: Final = 10
# Of one agent at once.
ADVISING_MAX: Final = 4


class Helping:
    """Both sides of a question for help."""

    def __init__(self, room: Room, recording: Recording) -> None:
        self._room, self._recording = room, recording
        self._advising: set[str] = set()

    async def ask(self, goal: Goal, question: str, ident: str, timeout_s: float) -> list[dict[str, Any]]:
        """Asks for advice and waits for it; asked again under the same id, the answers of then are given."""
        room = self._room
        row = room.ensure(goal)
        request = message_id(row.session_id, room.hub.peer_id, ident, "help")
        asked = room.file.item(row.session_id, "help", request)
        helpers = tuple(asked.data["helpers"]) if asked is not None else room.chosen(goal, HELPERS_MAX)
        if asked is None:
            if not helpers or len(room.file.items(row.session_id, kind="help")) >= QUESTIONS_MAX:
                return []
            data = {
                "request_id": request,
                "from": {**room.speaker(), "peer": room.hub.peer_id},
                "question": room.clean(question),
                "helpers": list(helpers),
                "timestamp": room.stamp(),
            }
            asked = room.file.add(row.session_id, "help", request, data, room.now_ms(), own=True)
            if asked is None:
                return []
            room.tell(row.session_id)
        if room.file.record(request) is None:
            await self._wait(asked, set(helpers), min(HELP_WAIT_S, timeout_s))
            advice = self._advice(asked)
            self._recording.note(
                row,
                request,
                outcome="advised" if advice else "unadvised",
                reason=f"{len(advice)} of {counted(len(helpers), 'asked member')} gave advice",
                summary=f"Asked: {asked.data['question']}"
                + "".join(f"\n{said['from']} advised: {said['message']}" for said in advice),
                participants=[room.hub.peer_id, *self._advisers(asked)],
            )
        return self._advice(asked)

    async def _wait(self, asked: Item, helpers: set[str], timeout_s: float) -> None:
        room = self._room
        deadline = asyncio.get_running_loop().time() + timeout_s
        for hop in range(HOPS_MAX + 1):
            with contextlib.suppress(HubError):
                await self._publish(asked, hop)
            left = deadline - asyncio.get_running_loop().time()
            wait = min(left, ASK_AGAIN_S) if hop < HOPS_MAX else left
            if left <= 0 or await room.until(lambda: helpers <= self._advisers(asked), wait):
                return

    async def _publish(self, asked: Item, hop: int) -> None:
        row = self._room.file.session(asked.session_id)
        if row is None:
            return
        said = {
            "request_id": asked.id,
            "task_id": row.task_id,
            "attempt": row.attempt,
            "from": self._room.speaker(),
            "question": asked.data["question"],
            "helpers": asked.data["helpers"],
            "timestamp": asked.data["timestamp"],
        }
        await self._room.hub.publish(
            META_DISCUSSION, "task_help_request", said, hop_count=hop or None, thread_id=row.session_id
        )
        self._room.file.published(asked)

    def _replies(self, asked: Item) -> list[Item]:
        items = self._room.file.items(asked.session_id, kind="advice")
        return [item for item in items if item.data["request_id"] == asked.id]

    def _advisers(self, asked: Item) -> set[str]:
        return {str(item.data["from"]["peer"]) for item in self._replies(asked)}

    def _advice(self, asked: Item) -> list[dict[str, Any]]:
        return [
            {"from": item.data["from"]["agent_id"], "name": "", "message": item.data["message"]}
            for item in self._replies(asked)
        ]

    # What others ask and advise

    def hear_request(self, message: Message) -> None:
        """Somebody's run is stuck. Raises ValidationError for what is no question."""
        room = self._room
        said = TaskHelpRequest.model_validate(message.data)
        goal = room.goal_of(said.task_id, said.attempt)
        if goal is None or goal.owner != message.sender or not room.is_own(message.sender, said.speaker):
            metrics.HMMM_MESSAGES.labels("foreign").inc()
            return
        row = room.ensure(goal)
        data = {
            "request_id": said.request_id,
            "from": {"agent_id": said.speaker.agent_id, "role": said.speaker.role, "peer": message.sender},
            "question": room.clean(said.question),
            "helpers": list(said.helpers),
            "timestamp": said.timestamp,
        }
        known = room.file.item(row.session_id, "help", said.request_id)
        if known is None:
            if len(room.file.items(row.session_id, kind="help")) >= QUESTIONS_MAX:
                return
            known = room.file.add(row.session_id, "help", said.request_id, data, room.now_ms())
            room.tell(row.session_id)
        if known is not None and room.hub.peer_id in _asked(known):
            room.spawn(self._advise(goal, known))

    async def _advise(self, goal: Goal, asked: Item) -> None:
        room = self._room
        ident = message_id(asked.id, room.hub.peer_id, "", "advice")
        mine = room.file.item(asked.session_id, "advice", ident)
        if mine is None:
            if asked.id in self._advising or len(self._advising) >= ADVISING_MAX:
                return
            self._advising.add(asked.id)
            try:
                text = await self._think(goal, asked)
            finally:
                self._advising.discard(asked.id)
            if not text:
                return
            speaker = {**room.speaker(), "peer": room.hub.peer_id}
            data = {"request_id": asked.id, "from": speaker, "message": text, "timestamp": room.stamp()}
            mine = room.file.add(asked.session_id, "advice", ident, data, room.now_ms(), own=True)
            room.tell(asked.session_id)
        if mine is not None and (mine.published or 0) <= HOPS_MAX:
            await self._publish_advice(goal, mine)

    async def _publish_advice(self, goal: Goal, mine: Item) -> None:
        said = {
            "request_id": mine.data["request_id"],
            "task_id": goal.task_id,
            "attempt": goal.attempt,
            "from": self._room.speaker(),
            "message": mine.data["message"],
            "timestamp": mine.data["timestamp"],
        }
        await self._room.hub.publish(
            META_DISCUSSION,
            "task_help_response",
            said,
            hop_count=(mine.published or 0) or None,
            thread_id=mine.session_id,
        )
        self._room.file.published(mine)

    async def _think(self, goal: Goal, asked: Item) -> str:
        head = {"question": asked.data["question"], "task": goal.view()}
        try:
            reply = await self._room.hub.call_service("mind", "advise", head, timeout=ADVISE_TIMEOUT_S)
        except HubError as error:
            self._room.process.log.info("the mind has no advice", request=asked.id, error=str(error))
            return ""
        text = reply.head.get("message")
        return self._room.clean(text).strip() if isinstance(text, str) else ""

    def hear_response(self, message: Message) -> None:
        """Somebody's advice; only that of members that were asked counts. Raises ValidationError for none."""
        room = self._room
        said = TaskHelpResponse.model_validate(message.data)
        goal = room.goal_of(said.task_id, said.attempt)
        if goal is None or not room.is_own(message.sender, said.speaker):
            metrics.HMMM_MESSAGES.labels("foreign").inc()
            return
        row = room.ensure(goal)
        asked = room.file.item(row.session_id, "help", said.request_id)
        if asked is None or message.sender not in _asked(asked):
            metrics.HMMM_MESSAGES.labels("foreign").inc()
            return
        member = room.member(message.sender)
        speaker = {"agent_id": said.speaker.agent_id, "role": member.role if member else ""}
        data = {
            "request_id": said.request_id,
            "from": {**speaker, "peer": message.sender},
            "message": fitted(room.clean(said.message)),
            "timestamp": said.timestamp,
        }
        # Each member once, whatever id it would choose.
        ident = message_id(said.request_id, message.sender, "", "advice")
        if room.file.add(row.session_id, "advice", ident, data, room.now_ms()) is not None:
            room.tell(row.session_id)


def _asked(item: Item) -> frozenset[str]:
    """The peers that a question for help was put to."""
    return frozenset(item.data.get("helpers", ()))

"""Records of what was discussed: what concluded is written down first and then published, once, by the owner.

note on disk -> signed -> transcript in the DHT and at its address -> record in the DHT, the table, the log
Every step may be repeated after a kill; what a record is made of lies on the disk before the first.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import orjson

from chorus import decisions
from chorus.coordinator.hmmm.forms import item_view
from chorus.coordinator.hmmm.room import Room
from chorus.coordinator.hmmm.store import RecordRow, SessionRow
from chorus.decisions import content
from chorus.decisions.schema import SUMMARY_MAX_CHARS, TITLE_MAX_CHARS
from chorus.hmmm.session import Session
from chorus.hub import HubError, HubRefused, guard
from chorus.wire.counts import counted
from chorus.wire.ids import new_id
from chorus.wire.times import rfc3339

ENTRY_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 5.0
_AGAIN: Final = (HubError, OSError, sqlite3.Error, decisions.DecisionError)
# How the table says that a record of this name is listed, and that it never will be.
_KNOWN: Final = "known"
_NEVER: Final = ("no such attempt", "only the attempt's executor")
_REASON_MAX_CHARS: Final = 8_000
_CITED_MAX: Final = 32


class Recording:
    """Publishes the records of discussions, of advice and of alerts about this agent's goals."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._due = asyncio.Event()

    # What is to be recorded

    def discussion(self, row: SessionRow, session: Session) -> None:
        """A discussion that this agent owns is concluded."""
        plan = session.plan.message if session.plan is not None else ""
        changed = sum(1 for word in session.words if word.intent == "proposal") - 1
        told = f"The plan was changed {counted(changed, 'time')}. " if changed > 0 else ""
        cited = [cited.ucxl for word in session.words for cited in word.citations]
        self.note(
            row,
            row.session_id,
            outcome=session.outcome,
            reason=session.reason,
            summary=f"{told}The plan: {plan}",
            participants=[word.peer for word in session.words],
            cited=[address for address in cited if "/discussion/" not in address],
        )

    def note(
        self,
        row: SessionRow,
        ident: str,
        *,
        outcome: str,
        reason: str,
        summary: str,
        participants: list[str],
        cited: list[str] = [],  # noqa: B006
    ) -> None:
        """Something of a session is to become a record under this id."""
        room = self._room
        facts = {
            "outcome": outcome,
            "reason": reason[:_REASON_MAX_CHARS],
            "summary": summary[:SUMMARY_MAX_CHARS],
            "participants": sorted(set(participants)),
            "cited": list(dict.fromkeys(cited))[:_CITED_MAX],
            "at": rfc3339(room.now_ms()),
            "transcript": self._transcript(row),
            # Part of its address: the same from now on, also when this agent gets another one.
            "role": room.process.assignments.current.role,
        }
        room.file.put_record(RecordRow(ident, row.session_id, facts))
        self._due.set()

    def _transcript(self, row: SessionRow) -> str:
        """All that was said in the session so far, a line of JSON each."""
        about = {"session_id": row.session_id, "task_id": row.task_id, "attempt": row.attempt}
        lines = [about, *map(item_view, self._room.file.items(row.session_id))]
        return b"".join(orjson.dumps(line) + b"\n" for line in lines).decode()

    def address(self, row: SessionRow) -> str | None:
        """Where the record of a discussion that this agent owns stands, or will once it is published.

        None before the discussion is concluded, and where its record can never be listed.
        """
        record = self._room.file.record(row.session_id)
        if record is None:
            return None
        return self._address(row, record.facts) if record.address is None else record.address or None

    # Publishing

    async def run(self) -> None:
        """Publishes what is due, until cancelled."""
        while True:
            self._due.clear()
            wait = None
            for row in list(self._room.file.records_due()):
                try:
                    with guard.handling("record", raising=_AGAIN):
                        await self._publish(row)
                except _AGAIN as error:
                    self._room.process.log.info("a record waits", record=row.id, error=str(error))
                    wait = RETRY_S
            try:
                async with asyncio.timeout(wait):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def _publish(self, row: RecordRow) -> None:
        room = self._room
        session = room.file.session(row.session_id)
        if session is None:
            return
        facts = row.facts
        if "signed" not in facts:
            signed = await decisions.redact_and_sign(room.hub, self._record(session, facts))
            since = (await room.hub.log_info())["length"]
            # The same bytes and ids whenever this is repeated: they count once.
            facts = facts | {
                "signed": signed.decode(),
                "since": since,
                "entry_id": new_id(),
                "version_id": new_id(),
            }
            room.file.advance_record(row.id, facts)
        encoded = str(facts["signed"]).encode()
        record = orjson.loads(encoded)
        refused: list[str] = []

        async def enter(type: str, body: dict[str, Any]) -> None:
            settled = await room.proposals.propose(type, body, ENTRY_TIMEOUT_S, entry_id=facts["entry_id"])
            if not settled.accepted and not settled.reason.startswith(_KNOWN):
                refused.append(settled.reason)
                raise HubRefused(settled.reason)

        await self._store_transcript(session, facts)
        try:
            name = await decisions.publish(
                room.hub, encoded, record, enter=enter, logged_since=facts["since"]
            )
        except HubRefused:
            if refused and refused[0].startswith(_NEVER):
                # Another mesh's attempt: nobody could find it here.
                room.file.advance_record(row.id, facts, address="")
                return
            if refused:
                # The table remembers the id that it refused.
                room.file.advance_record(row.id, facts | {"entry_id": new_id()})
            raise
        about = {"session_id": row.session_id, "task_id": session.task_id, "attempt": session.attempt}
        concluded = {**about, "outcome": facts["outcome"], "hash": name}
        await decisions.log_once(room.hub, "hmmm_concluded", concluded, since=facts["since"])
        # No more is needed of what it was made of.
        room.file.advance_record(row.id, {"outcome": facts["outcome"], "hash": name}, record["address"])
        listed = {"record": row.id, "outcome": facts["outcome"], "address": record["address"], "hash": name}
        room.file.add(row.session_id, "record", row.id, listed, room.now_ms())
        if row.id == row.session_id:
            room.process.operations.of("hmmm_session", row.session_id).end(str(facts["outcome"]))
        room.tell(row.session_id)

    async def _store_transcript(self, session: SessionRow, facts: dict[str, Any]) -> None:
        """The transcript at its own address, where the record says it is."""
        room = self._room
        text = str(facts["transcript"]).encode()
        stored = await content.store(room.hub, text, self._role(facts))
        name = content.sha256(text)
        body = {
            "address": self._transcript_address(session, facts),
            "hash": name,
            "stored": "" if stored == name else stored,
            "size": len(text),
            "content_type": "application/jsonl",
        }
        settled = await room.proposals.propose("version", body, ENTRY_TIMEOUT_S, entry_id=facts["version_id"])
        if not settled.accepted:
            raise HubRefused(settled.reason)

    def _role(self, facts: Mapping[str, Any]) -> str:
        return str(facts.get("role", self._room.process.assignments.current.role))

    def _address(self, session: SessionRow, facts: Mapping[str, Any]) -> str:
        agent = self._room.process.settings.agent_id
        return decisions.address(
            agent, self._role(facts), session.project, session.task_id, session.attempt, "hmmm_outcome"
        )

    def _transcript_address(self, session: SessionRow, facts: Mapping[str, Any]) -> str:
        return self._address(session, facts).rpartition("/")[0] + "/transcript.jsonl"

    def _record(self, session: SessionRow, facts: dict[str, Any]) -> dict[str, Any]:
        room = self._room
        settings = room.process.settings
        return decisions.build(
            kind="hmmm_outcome",
            peer=room.hub.peer_id,
            agent_id=settings.agent_id,
            role=self._role(facts),
            project=session.project,
            task_id=session.task_id,
            attempt=session.attempt,
            mesh=room.follower.mesh().mesh,
            title=session.title[:TITLE_MAX_CHARS],
            decided={
                "outcome": facts["outcome"],
                "reason": facts["reason"],
                "session_id": session.session_id,
                "participants": facts["participants"],
                "transcript_sha256": content.sha256(str(facts["transcript"]).encode()),
            },
            summary=facts["summary"],
            inputs=decisions.inputs(),
            influenced_by=facts["cited"],
            derived_from=[self._transcript_address(session, facts)],
            created_at=facts["at"],
        )

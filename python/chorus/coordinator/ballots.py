"""Votes on decisions: a member's vote on its way into the table, and the leader's care for the ballots.

The rules are `chorus.table.votes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus import decisions
from chorus.coordinator import SERVICE
from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.leading import Leading
from chorus.coordinator.proposals import Proposals
from chorus.hub import (
    Hub,
    HubError,
    HubInvalid,
    HubNoLeader,
    HubNotFound,
    HubNotLeader,
    HubRefused,
    HubTimeout,
    Request,
    guard,
)
from chorus.process import Process
from chorus.table.reader import TableReader
from chorus.table.records import Ballot, Body, Decision, Member, Mesh
from chorus.table.rows import BallotRow
from chorus.table.view import ballot_view
from chorus.table.votes import VOTERS_MAX, Hash
from chorus.wire.ids import new_id
from chorus.wire.messages import DECISIONS
from chorus.wire.schema import Schema
from chorus.wire.times import rfc3339

# What is nobody's fault and may go well another time.
_AGAIN = (HubError, OSError, sqlite3.Error, decisions.DecisionError)
# A vote is open for a day unless whoever calls it says otherwise.
OPEN_DEFAULT_S = 24 * 3600.0
OPEN_MAX_S = 366 * 24 * 3600.0
ENTRY_TIMEOUT_S = 10.0
# Whether this agent leads is looked at so often; deadlines far away too, because clocks are set.
IDLE_S = 1.0
LOOK_AGAIN_S = 60.0
# What the reasons of all votes may hold in a record; each has its part.
REASONS_MAX_CHARS = 200_000
# After the DHT or the log did not take an outcome's record.
RETRY_S = 5.0


M = TypeVar("M", bound=BaseModel)


class Terms(Schema):
    """How a ballot on a decision is held; unless said, with a majority of the listed members, for a day."""

    model_config = ConfigDict(extra="ignore")

    hash: Hash
    quorum: Annotated[int, Field(ge=1, le=VOTERS_MAX)] | None = None
    open_s: Annotated[float, Field(ge=0, le=OPEN_MAX_S, allow_inf_nan=False)] | None = None


class Asked(Terms):
    """A vote to be cast, and the terms of the ballot if it is the first."""

    choice: Literal["approve", "reject", "abstain"]
    reason: Annotated[str, Field(max_length=2000)] = ""
    by: Annotated[str, Field(max_length=128)] = ""


class Ballots:
    """Both sides of a vote; the leader's idles while another agent leads."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        proposals: Proposals,
        leading: Leading,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._process, self._hub, self._follower, self._store = process, hub, follower, follower.store
        self._proposals, self._leading, self._wall_ms = proposals, leading, wall_ms
        self._table = TableReader(follower.store.path)
        # The outcome that is being published, for a life that has to go on with it.
        self._note = process.settings.paths.data / "outcome.json"
        self._wake = asyncio.Event()
        # What the leader has to see to; read anew when this agent begins to lead, and after each such entry.
        self._stale = True
        self._open: list[Ballot] = []
        follower.listen(self._on_applied)

    # A member votes

    async def cast(self, request: Request) -> dict[str, Any]:
        """`votes.cast` {hash, choice, reason?, by?, quorum?, open_s?} -> {ballot}: votes for this member.

        The first vote on a decision opens the ballot, on the terms given with it.
        """
        asked = _read(request, Asked)
        deadline = asyncio.get_running_loop().time() + request.timeout
        if self._store.get(Decision, asked.hash) is None:
            raise HubNotFound(f"no decision {asked.hash} is known here")
        ballot = self._store.get(Ballot, asked.hash)
        if ballot is None or ballot.state == "undecided":
            ballot = await self._opened(asked, deadline)
        body = {
            "hash": asked.hash,
            "round": ballot.round,
            "choice": asked.choice,
            "reason": asked.reason,
            "by": asked.by,
        }
        settled = await self._proposals.propose("vote", body, _left(deadline))
        if not settled.accepted:
            raise HubRefused(settled.reason)
        await self._tell(body)
        row = self._table.ballot(asked.hash)
        return {"ballot": ballot_view(row) if row is not None else None}

    async def _tell(self, body: dict[str, Any]) -> None:
        # News only: the table has the vote.
        with contextlib.suppress(HubError):
            said = {"hash": body["hash"], "vote": body["choice"], "reason": body["reason"]}
            await self._hub.publish(DECISIONS, "decision_vote", said)
            await self._hub.log_append("decision_vote", {**said, "by": body["by"], "round": body["round"]})

    async def _opened(self, terms: Terms, deadline: float) -> Ballot:
        leader = self._follower.mesh().leader
        if leader is None:
            raise HubNoLeader("the mesh has no leader to open the vote now")
        if leader == self._hub.peer_id:
            index = await self._open_ballot(terms, _left(deadline))
        else:
            head = terms.model_dump(include={"hash", "quorum", "open_s"}, exclude_none=True)
            reply = await self._hub.request(leader, SERVICE, "votes.open", head, timeout=_left(deadline))
            index = int(reply.head.get("index") or 0)
        try:
            async with asyncio.timeout_at(deadline):
                await self._follower.reached(index)
        except TimeoutError:
            raise HubTimeout("the vote is opened, and not yet known here; try again") from None
        ballot = self._store.get(Ballot, terms.hash)
        if ballot is None:
            raise HubRefused("no vote was opened")
        return ballot

    # The leader

    async def open(self, request: Request) -> dict[str, Any]:
        """`votes.open` {hash, quorum?, open_s?} -> {index}: on the leader; the entry that opened the vote."""
        return {"index": await self._open_ballot(_read(request, Terms), request.timeout)}

    async def _open_ballot(self, terms: Terms, timeout: float) -> int:
        if not self._leading.active:
            raise HubNotLeader("this agent does not lead the mesh")
        members = [member.peer for member in self._store.records(Member)]
        if len(members) > VOTERS_MAX:
            raise HubRefused(f"limit: {VOTERS_MAX} members vote on a decision")
        majority = len(members) // 2 + 1
        quorum = majority if terms.quorum is None else terms.quorum
        # A few who agree on a small quorum are not the mesh.
        if not majority <= quorum <= len(members):
            raise HubInvalid(f"quorum: {majority} to {len(members)} of {len(members)} members")
        open_ms = int((OPEN_DEFAULT_S if terms.open_s is None else terms.open_s) * 1000)
        body = {"hash": terms.hash, "quorum": quorum, "voters": members, "open_ms": open_ms}
        settled = await self._proposals.propose("ballot", body, timeout)
        # Another was faster: its ballot does as well.
        if not settled.accepted and not settled.reason.startswith("open"):
            raise HubRefused(settled.reason)
        return settled.index

    async def run(self) -> None:
        """On the leader: ends what has had its time, and records what has ended. Until cancelled."""
        await self._log_what_was_left()
        while True:
            self._wake.clear()
            wait: float | None = IDLE_S
            if not self._leading.active:
                self._stale = True
            else:
                try:
                    wait = await self._see_to()
                except (HubError, OSError, decisions.DecisionError) as error:
                    self._process.log.warning("a vote is not concluded yet; trying again", error=str(error))
                    self._stale, wait = True, RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _log_what_was_left(self) -> None:
        """A life before may have been killed between an outcome's entry and its line in the log."""
        with contextlib.suppress(HubError, OSError, ValueError, KeyError):
            left = orjson.loads(self._note.read_bytes())
            if self._table.decision(left["about"]["hash"]) is not None:
                await decisions.log_once(
                    self._hub, "decision_published", left["about"], since=int(left["since"])
                )
            self._note.unlink()

    def _on_applied(self, batch: list[Applied]) -> None:
        concerned = ("ballot", "vote", "ballot_end", "decision", "leader", "import_ballot")
        if any(applied.entry.type in concerned for applied in batch):
            self._stale = True
            self._wake.set()

    async def _see_to(self) -> float | None:
        """Does what is due; how long until there may be more."""
        if self._stale:
            self._stale = False
            self._open = self._store.unrecorded_ballots()
        waits = []
        for ballot in self._open:
            # What members voted is theirs: one odd ballot must end neither the leader nor the other ballots.
            with guard.handling("record", raising=_AGAIN):
                if ballot.state != "open":
                    await self._conclude(ballot)
                elif (left := ballot.closes_at - self._wall_ms()) > 0:
                    waits.append(left / 1000)
                else:
                    body = {"hash": ballot.hash, "round": ballot.round}
                    await self._proposals.propose("ballot_end", body, ENTRY_TIMEOUT_S)
        return max(0.05, min([LOOK_AGAIN_S, *waits])) if self._open else None

    async def _conclude(self, ballot: Ballot) -> None:
        decision, mesh = self._store.get(Decision, ballot.hash), self._store.get(Mesh, "mesh")
        row = self._table.ballot(ballot.hash)
        if decision is None or row is None or mesh is None or row.record is not None:
            return
        encoded = await decisions.redact_and_sign(self._hub, self._record(row, decision, mesh.mesh))
        record = orjson.loads(encoded)
        entry_id = new_id()

        async def enter(type: str, entry: dict[str, Any]) -> None:
            body = {**entry, "decides": ballot.hash}
            settled = await self._proposals.propose(type, body, ENTRY_TIMEOUT_S, entry_id=entry_id)
            if not settled.accepted:
                # Another leader was faster, or leads by now: what the table says then is looked at anew.
                raise HubRefused(settled.reason)

        about = {"hash": decisions.hash_of(encoded)}
        about |= {name: record[name] for name in ("address", "kind", "task_id", "attempt")}
        since = (await self._hub.log_info())["length"]
        await asyncio.to_thread(_write, self._note, orjson.dumps({"about": about, "since": since}))
        await decisions.publish(self._hub, encoded, record, enter=enter)
        self._note.unlink(missing_ok=True)

    def _record(self, row: BallotRow, decision: Decision, mesh: str) -> dict[str, Any]:
        settings = self._process.settings
        body = self._store.get(Body, decision.task_id) if decision.task_id is not None else None
        task = body.task if body is not None else {}
        counted = f"{row.approve} approve, {row.reject} reject, {row.abstain} abstain"
        cast = row.approve + row.reject + row.abstain
        room = REASONS_MAX_CHARS // max(1, len(row.votes))
        reason = f"{cast} of {row.voters} members voted, {row.quorum} had to" if cast < row.quorum else ""
        return decisions.build(
            kind="vote",
            peer=self._hub.peer_id,
            agent_id=settings.agent_id,
            role=self._process.assignments.current.role,
            project=str(task.get("project") or ""),
            task_id=str(decision.task_id),
            attempt=int(decision.attempt or 0),
            mesh=mesh,
            title=f"vote on {decision.address}"[:1000],
            decided={
                "outcome": row.state,
                "reason": reason,
                "decision": row.hash,
                "round": row.round,
                "quorum": row.quorum,
                "voters": row.voters,
                "approve": row.approve,
                "reject": row.reject,
                "abstain": row.abstain,
                "votes": [
                    {
                        "voter": vote.voter,
                        "choice": vote.choice,
                        "reason": vote.reason[:room],
                        "by": vote.by,
                        "at": rfc3339(vote.at_ms),
                    }
                    for vote in row.votes
                ],
                "opened_at": rfc3339(row.opened_at),
            },
            summary=f"The members' vote on {decision.address}: {row.state} ({counted}).",
            inputs=decisions.inputs(),
            derived_from=[decision.address],
            # The same bytes by the same leader, however often it begins anew.
            created_at=rfc3339(row.ended_at or row.closes_at),
        )


def _read(request: Request, model: type[M]) -> M:
    try:
        return model.model_validate(request.head)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise HubInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _write(path: Path, content: bytes) -> None:
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _left(deadline: float) -> float:
    return max(0.05, deadline - asyncio.get_running_loop().time())

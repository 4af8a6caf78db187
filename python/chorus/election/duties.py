"""The leader's duties besides Raft's own: one change of votes at a time, and handing leadership over in
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from chorus.config import MeshSettings
from chorus.election.admission import Admission
from chorus.election.announce import News
from chorus.election.policy import (
    CAUGHT_UP_ENTRIES,
    Demote,
    Following,
    HandOver,
    Promote,
    Seen,
    Steadiness,
    lacks_first_votes,
    vote_change,
)
from chorus.hub import Hub, HubError, HubNotLeader, HubRefused, HubUnavailable, RaftStatus
from chorus.process import Process
from chorus.table.reader import TableReader

TRANSFER_TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 10.0
POLL_S = 0.05


class Duties:
    """Called with the machine's status at every beat; does something only while this agent leads."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        admission: Admission,
        news: News,
        reader: TableReader,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._hub, self._admission, self._news, self._reader = (
            process,
            hub,
            admission,
            news,
            reader,
        )
        self._clock = clock
        self._steadiness = Steadiness()
        self._hand_over = HandOver()
        self._following = Following()
        self._leads = False
        self.draining = False
        # Whether a member that is there is about to be given one of the first votes.
        self.unsettled = False

    async def beat(self, status: RaftStatus, score: float) -> None:
        """One look at the members; at most one change follows."""
        settings = status.settings
        if status.role != "leader" or settings is None:
            self._leads = self.unsettled = False
            return
        if not self._leads:
            self._leads = True
            self._steadiness.reset()
            self._hand_over.reset()
            self._following.reset()
        seen = self.seen(status)
        if self.draining:
            return
        if await self._change_votes(status, settings, seen):
            return
        await self._consider_hand_over(status, settings, seen, score)

    def seen(self, status: RaftStatus) -> list[Seen]:
        """The members as this leader sees them now."""
        now = self._clock()
        members = []
        for member in status.members:
            me = member.peer == self._hub.peer_id
            caught_up = me or status.last - member.match <= CAUGHT_UP_ENTRIES
            steady, away = self._steadiness.see(member.peer, me or member.recent, caught_up, now)
            members.append(Seen(member.peer, member.voter, caught_up, steady, away, me))
        return members

    async def _change_votes(self, status: RaftStatus, settings: MeshSettings, seen: list[Seen]) -> bool:
        change = vote_change(seen, settings.voters)
        self.unsettled = lacks_first_votes(seen, settings.voters)
        if change is None:
            return False
        async with self._admission.changing:
            try:
                match change:
                    case Promote(peer):
                        await self._hub.raft_promote(peer, timeout=CHANGE_TIMEOUT_S)
                    case Demote(peer):
                        await self._hub.raft_demote(peer, timeout=CHANGE_TIMEOUT_S)
            except HubError as error:
                # Looked at again at the next beat; the members may be others by then.
                self._process.log.info("a vote was not changed", peer=change.peer, error=str(error))
                return True
        given = isinstance(change, Promote)
        self._process.log.info("vote given" if given else "vote taken", peer=change.peer)
        voters = sum(member.voter for member in seen) + (1 if given else -1)
        await self._news.say(
            "member_change",
            mesh=status.mesh,
            term=status.term,
            peer=change.peer,
            change="voter" if given else "learner",
            voters=voters,
            members=len(seen),
        )
        return True

    async def _consider_hand_over(
        self, status: RaftStatus, settings: MeshSettings, seen: list[Seen], score: float
    ) -> None:
        able = self._able(seen)
        now = self._clock()
        scores = self._news.scores(status.mesh, settings.heartbeat_s)
        to = self._hand_over.to(score, {peer: scores[peer] for peer in able if peer in scores}, now)
        why = "it has been clearly better for the whole window"
        if (
            to is None
            and able
            and self._following.stuck(self._reader.applied(), status.commit, now, settings.election_timeout_s)
        ):
            to, why = able[0], "this agent's table does not follow its log"
        if to is None:
            return
        self._hand_over.reset()
        self._following.reset()
        try:
            await self.transfer(to, why)
        except HubError as error:
            self._process.log.warning("leadership was not handed over", to=to, error=str(error))

    async def transfer(self, to: str | None, why: str) -> str:
        """Hands leadership over, to the best voter when nobody is named; returns to whom."""
        status = await self._hub.raft_status()
        if status.role != "leader" or status.settings is None:
            raise HubNotLeader("this agent does not lead the mesh")
        able = self._able(self.seen(status))
        scores = self._news.scores(status.mesh, status.settings.heartbeat_s)
        if to is None:
            to = max(able, key=lambda peer: scores.get(peer, 0.0), default=None)
            if to is None:
                raise HubUnavailable("no other voter is there and caught up")
        if to not in able:
            raise HubRefused("only a voter that is there and caught up can take over")
        self._process.log.info("handing leadership over", to=to, reason=why)
        await self._news.say("resign", mesh=status.mesh, term=status.term, reason=why)
        await self._hub.raft_transfer(to, timeout=TRANSFER_TIMEOUT_S)
        return to

    async def leave(self, deadline_s: float) -> bool:
        """For a stop: hands over, a sole voter its vote too. Whether the mesh needs this agent no longer."""
        self.draining = True
        try:
            async with asyncio.timeout(deadline_s):
                status = await self._hub.raft_status()
                if status.mesh is None or len(status.members) < 2:
                    return True
                if status.role == "leader":
                    await self._give_vote(status)
                    await self.transfer(None, "this agent is about to stop")
                return await self._let_go()
        except (HubError, TimeoutError) as error:
            self._process.log.warning("leadership was not handed over before the stop", error=str(error))
            return False

    async def _give_vote(self, status: RaftStatus) -> None:
        if sum(member.voter for member in status.members) > 1:
            return
        ready = [
            member
            for member in self.seen(status)
            if not member.voter and member.caught_up and not member.away_s
        ]
        if not ready:
            raise HubUnavailable("no other member is there and caught up")
        heir = max(ready, key=lambda member: (member.steady_s, member.peer))
        async with self._admission.changing:
            await self._hub.raft_promote(heir.peer, timeout=CHANGE_TIMEOUT_S)

    async def _let_go(self) -> bool:
        """Waits while this agent is one of two voters: without it the other could do nothing."""
        while True:
            status = await self._hub.raft_status()
            voters = [member.peer for member in status.members if member.voter]
            if status.role != "leader" and not (len(voters) == 2 and self._hub.peer_id in voters):
                return True
            await asyncio.sleep(POLL_S)

    @staticmethod
    def _able(seen: list[Seen]) -> list[str]:
        return [m.peer for m in seen if m.voter and not m.me and m.caught_up and m.away_s == 0]

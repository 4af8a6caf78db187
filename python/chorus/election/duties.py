"""The leader's duties besides Raft's own: one change of members at a time, and handing leadership over in
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
    Change,
    Demote,
    Following,
    HandOver,
    Patience,
    Promote,
    Remove,
    Seen,
    Steadiness,
    lacks_first_votes,
    member_change,
)
from chorus.hub import Hub, HubError, HubNotFound, HubNotLeader, HubRefused, HubUnavailable, RaftStatus
from chorus.process import Process
from chorus.table.entry_types import SINCE
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
        self._looked_at = 0.0
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
        patience = Patience.of(settings)
        now = self._clock()
        if now - self._looked_at >= patience.away_s:
            # Nobody watched the members meanwhile: who was missed before and after may have been there.
            self._steadiness.reset()
        self._looked_at = now
        seen = self.seen(status)
        if self.draining:
            return
        if await self._change_members(status, settings, seen, patience):
            return
        await self._consider_hand_over(status, settings, seen, score)

    def seen(self, status: RaftStatus) -> list[Seen]:
        """The members as this leader sees them now."""
        now = self._clock()
        self._steadiness.forget_all_but(member.raft_id for member in status.members)
        members = []
        for member in status.members:
            me = member.peer == self._hub.peer_id
            caught_up = me or status.last - member.match <= CAUGHT_UP_ENTRIES
            steady, away = self._steadiness.see(member.raft_id, me or member.recent, caught_up, now)
            members.append(Seen(member.peer, member.voter, caught_up, steady, away, me))
        return members

    async def _change_members(
        self, status: RaftStatus, settings: MeshSettings, seen: list[Seen], patience: Patience
    ) -> bool:
        change = member_change(seen, settings.voters, patience, removes=not self._held_back())
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
                    case Remove(peer):
                        reason = f"no answer for {patience.absence_s:g} s"
                        await self._hub.raft_remove(peer, reason, timeout=CHANGE_TIMEOUT_S)
            except HubError as error:
                # Looked at again at the next beat; the members may be others by then.
                self._process.log.info("a member was not changed", peer=change.peer, error=str(error))
                return True
        await self._tell(change)
        return True

    async def _tell(self, change: Change) -> None:
        """Says what was done, and how many members there are after it."""
        match change:
            case Promote():
                said, news = "vote given", "voter"
            case Demote():
                said, news = "vote taken", "learner"
            case Remove():
                said, news = "member removed", "removed"
        self._process.log.info(said, peer=change.peer)
        status = await self._hub.raft_status()
        await self._news.say(
            "member_change",
            mesh=status.mesh,
            term=status.term,
            peer=change.peer,
            change=news,
            voters=sum(member.voter for member in status.members),
            members=len(status.members),
        )

    def _held_back(self) -> bool:
        """Whether the table does not know removal yet, as a member runs an earlier release."""
        mesh = self._reader.mesh()
        return mesh is None or mesh.version < SINCE["removal"]

    async def remove(self, peer: str, *, force: bool) -> None:
        """Removes a member by hand, on the leader; returns when the mesh lists it no more.

        Raises HubNotLeader, HubNotFound for a peer that is not listed, and HubRefused for the leader itself,
        for a member that answers (unless with `force`), and while the table does not know removal.
        """
        status = await self._hub.raft_status()
        if status.role != "leader":
            raise HubNotLeader("this agent does not lead the mesh")
        member = next((member for member in status.members if member.peer == peer), None)
        if member is None:
            raise HubNotFound(f"the mesh lists no member {peer}")
        name = self._reader.name_of(peer)
        if peer == self._hub.peer_id:
            raise HubRefused(
                f"{name} leads the mesh, and no leader removes itself: hand leadership over first, with "
                "chorusctl election transfer"
            )
        if self._held_back():
            raise HubRefused(
                f"members can be removed from version {SINCE['removal']} of the table on, which every member "
                f"has to know first; the releases they run: {self._releases()}"
            )
        if member.recent and not force:
            raise HubRefused(
                f"{name} is present: stop it first. With force it is removed all the same, and joins anew "
                "by itself while it runs"
            )
        async with self._admission.changing:
            if member.voter:
                await self._hub.raft_demote(peer, timeout=CHANGE_TIMEOUT_S)
                await self._tell(Demote(peer))
            await self._hub.raft_remove(peer, "asked for by hand", timeout=CHANGE_TIMEOUT_S)
        await self._tell(Remove(peer))

    def _releases(self) -> str:
        return ", ".join(
            f"{member.agent_id or member.peer} {member.version}" for member in self._reader.members()
        )

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

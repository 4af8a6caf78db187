"""Who votes, who is removed, and when leadership is handed over: decided by the leader from what it sees.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from chorus.config import MeshSettings

# A voter away for so long loses its vote, in a mesh whose absence is a minute or more.
AWAY_S = 30.0
# Sooner only where members are removed sooner: at half of the absence. But never before a lost connection has
# had the time to come back, in election timeouts.
AWAY_SHARE = 1 / 2
AWAY_ELECTION_TIMEOUTS = 2
# From three voters on a learner has to have been there, caught up, for so long before it votes; sooner, too,
# where members are removed soon.
STEADY_S = 10.0
STEADY_SHARE = 1 / 4
# Below this number of voters nothing is gained by waiting.
SAFE_VOTERS = 3
# A learner this close to the end of the log is caught up.
CAUGHT_UP_ENTRIES = 100
# Clearly better, and for the whole window.
BETTER_BY = 0.2
STABLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the leader waits before it changes members, in seconds.

    `away_s` until a voter that is away loses its vote, `steady_s` until a learner that is there may have one,
    `absence_s` until a member that is away is removed.
    """

    away_s: float = AWAY_S
    steady_s: float = STEADY_S
    absence_s: float = 600.0

    @classmethod
    def of(cls, settings: MeshSettings) -> Self:
        """What the mesh's settings make of it."""
        absence_s = settings.absence_s
        least = AWAY_ELECTION_TIMEOUTS * settings.election_timeout_s
        away_s = max(least, min(AWAY_S, absence_s * AWAY_SHARE))
        return cls(away_s, min(STEADY_S, absence_s * STEADY_SHARE), absence_s)


@dataclass(frozen=True, slots=True)
class Seen:
    """A member as the leader sees it.

    `steady_s`: how long it has been heard and caught up without a break; `away_s`: how long not heard.
    """

    peer: str
    voter: bool
    caught_up: bool = True
    steady_s: float = 0.0
    away_s: float = 0.0
    me: bool = False

    @property
    def heard(self) -> bool:
        """Whether it answers now."""
        return self.me or self.away_s == 0


@dataclass(frozen=True, slots=True)
class Promote:
    """Give this learner a vote."""

    peer: str


@dataclass(frozen=True, slots=True)
class Demote:
    """Take this voter's vote."""

    peer: str


@dataclass(frozen=True, slots=True)
class Remove:
    """List this learner no longer: it was away for the whole absence."""

    peer: str


Change = Promote | Demote | Remove


def odd(number: int) -> int:
    """The largest odd number not above `number`, at least 1."""
    return max(1, number if number % 2 else number - 1)


def member_change(
    members: Iterable[Seen], limit: int, patience: Patience, *, removes: bool = True
) -> Change | None:
    """The next change of members; one at a time, never the leader's own vote, never the last one.

    `limit` bounds the number of voters. Votes come first: who is removed has none. No change lowers how many
    of the voters that answer now may fail, unless more vote than the limit allows.
    """
    listed = list(members)
    change = _vote_change(listed, limit, patience)
    if change is not None or not removes:
        return change
    # Nobody is removed while it could still have a vote.
    wait = max(patience.absence_s, patience.away_s)
    absent = [member for member in listed if not member.me and not member.voter and member.away_s >= wait]
    return Remove(_longest_away(absent).peer) if absent else None


def _vote_change(listed: list[Seen], limit: int, patience: Patience) -> Promote | Demote | None:
    voters = [member for member in listed if member.voter]
    gone = [member for member in voters if not member.me and member.away_s >= patience.away_s]
    if gone and len(voters) > 1:
        # First, and not only once another has it: until then the mesh would count on one more of those left.
        return Demote(_longest_away(gone).peer)
    newcomers = [member for member in listed if not member.voter and member.heard]
    able = [
        member
        for member in newcomers
        if member.caught_up and (len(voters) < SAFE_VOTERS or member.steady_s >= patience.steady_s)
    ]
    # Not more than can vote now: an even number on the way would only lower what may fail.
    if able and len(voters) < odd(min(limit, len(voters) + len(able))):
        return Promote(max(able, key=lambda member: (member.steady_s, member.peer)).peer)
    # An even number waits for a member that is there and will soon be able to vote.
    others = [member for member in voters if not member.me]
    if others and len(voters) > odd(min(limit, len(voters) + len(newcomers))):
        return Demote(min(others, key=_worth).peer)
    return None


def _longest_away(members: Iterable[Seen]) -> Seen:
    return min(members, key=lambda member: (-member.away_s, member.peer))


def _worth(member: Seen) -> tuple[bool, bool, float, str]:
    return member.heard, member.caught_up, member.steady_s, member.peer


def lacks_first_votes(members: Iterable[Seen], limit: int) -> bool:
    """Whether fewer vote than would as soon as those that are there have caught up."""
    listed = list(members)
    here = sum(member.heard for member in listed)
    return sum(member.voter for member in listed) < min(SAFE_VOTERS, odd(min(here, limit)))


class Steadiness:
    """Since when each member has been heard and caught up, or away.

    A member is known by its raft id: one that was removed and joins anew begins anew. Times are seconds of a
    clock passed in.
    """

    def __init__(self) -> None:
        self._steady: dict[int, float] = {}
        self._away: dict[int, float] = {}

    def reset(self) -> None:
        """A new leader counts from its own start."""
        self._steady.clear()
        self._away.clear()

    def forget_all_but(self, listed: Iterable[int]) -> None:
        """Keeps nothing of members that are listed no more."""
        kept = set(listed)
        for since in (self._steady, self._away):
            for gone in set(since) - kept:
                del since[gone]

    def see(self, raft_id: int, heard: bool, caught_up: bool, now: float) -> tuple[float, float]:
        """(steady_s, away_s) of the member now."""
        if heard and caught_up:
            self._steady.setdefault(raft_id, now)
        else:
            self._steady.pop(raft_id, None)
        if heard:
            self._away.pop(raft_id, None)
        else:
            self._away.setdefault(raft_id, now)
        steady = now - self._steady[raft_id] if raft_id in self._steady else 0.0
        # Away counts from the first time it was missed; just missed is already not here.
        away = max(now - self._away[raft_id], 1e-9) if raft_id in self._away else 0.0
        return steady, away


class HandOver:
    """Finds the member that has been clearly better than the leader for the whole window."""

    def __init__(self, stable_s: float = STABLE_S, better_by: float = BETTER_BY) -> None:
        self._stable_s, self._better_by = stable_s, better_by
        self._since: dict[str, float] = {}

    def reset(self) -> None:
        """Leadership changed."""
        self._since.clear()

    def to(self, mine: float, others: Mapping[str, float], now: float) -> str | None:
        """Whom to hand over to now.

        `others` are the voters that are there and caught up, with their scores.
        """
        better = {peer for peer, theirs in others.items() if theirs >= mine + self._better_by}
        for peer in set(self._since) - better:
            del self._since[peer]
        for peer in better:
            self._since.setdefault(peer, now)
        stable = [peer for peer, since in self._since.items() if now - since >= self._stable_s]
        return max(stable, key=lambda peer: (others[peer], peer), default=None)


class Following:
    """Whether the leader's own table follows the log: if not, its coordinator is dead or stuck."""

    def __init__(self) -> None:
        self._applied = -1
        self._since: float | None = None

    def reset(self) -> None:
        """Leadership changed."""
        self._since = None

    def stuck(self, applied: int, commit: int, now: float, limit_s: float) -> bool:
        """Whether nothing was applied for `limit_s` although there was something to apply."""
        if applied >= commit or applied != self._applied or self._since is None:
            self._applied, self._since = applied, now
            return False
        return now - self._since >= limit_s

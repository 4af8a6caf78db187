"""Who votes, and when leadership is handed over: decided by the leader from what it sees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A voter away for so long loses its vote.
AWAY_S = 30.0
# From three voters on a learner has to have been there, caught up, for so long before it votes.
STEADY_S = 10.0
# Below this number of voters nothing is gained by waiting.
SAFE_VOTERS = 3
# A learner this close to the end of the log is caught up.
CAUGHT_UP_ENTRIES = 100
# Clearly better, and for the whole window.
BETTER_BY = 0.2
STABLE_S = 60.0


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


@dataclass(frozen=True, slots=True)
class Promote:
    """Give this learner a vote."""

    peer: str


@dataclass(frozen=True, slots=True)
class Demote:
    """Take this voter's vote."""

    peer: str


def odd(number: int) -> int:
    """The largest odd number not above `number`, at least 1."""
    return max(1, number if number % 2 else number - 1)


def vote_change(members: Iterable[Seen], limit: int) -> Promote | Demote | None:
    """The next change of votes, one at a time; never the leader's own, never the last one."""
    listed = list(members)
    voters = [member for member in listed if member.voter]
    here = [member for member in listed if member.me or member.away_s < AWAY_S]
    gone = [member for member in voters if member not in here]
    if gone and len(voters) > 1:
        return Demote(min(gone, key=lambda member: (-member.away_s, member.peer)).peer)
    able = [
        member
        for member in here
        if not member.voter
        and member.away_s == 0
        and member.caught_up
        and (len(voters) < SAFE_VOTERS or member.steady_s >= STEADY_S)
    ]
    # Not more than can vote now: an even number on the way would only lower what may fail.
    target = odd(min(len(here), limit, len(voters) + len(able)))
    if len(voters) < target and able:
        return Promote(max(able, key=lambda member: (member.steady_s, member.peer)).peer)
    if len(voters) > target:
        others = [member for member in voters if not member.me]
        if others:
            return Demote(
                min(others, key=lambda member: (member.caught_up, member.steady_s, member.peer)).peer
            )
    return None


def lacks_first_votes(members: Iterable[Seen], limit: int) -> bool:
    """Whether fewer vote than would as soon as those that are there have caught up."""
    listed = list(members)
    here = sum(member.me or member.away_s == 0 for member in listed)
    return sum(member.voter for member in listed) < min(SAFE_VOTERS, odd(min(here, limit)))


class Steadiness:
    """Since when each member has been heard and caught up, or away.

    Times are seconds of a clock passed in.
    """

    def __init__(self) -> None:
        self._steady: dict[str, float] = {}
        self._away: dict[str, float] = {}

    def reset(self) -> None:
        """A new leader counts from its own start."""
        self._steady.clear()
        self._away.clear()

    def see(self, peer: str, heard: bool, caught_up: bool, now: float) -> tuple[float, float]:
        """(steady_s, away_s) of the member now."""
        if heard and caught_up:
            self._steady.setdefault(peer, now)
        else:
            self._steady.pop(peer, None)
        if heard:
            self._away.pop(peer, None)
        else:
            self._away.setdefault(peer, now)
        steady = now - self._steady[peer] if peer in self._steady else 0.0
        # Away counts from the first time it was missed; just missed is already not here.
        away = max(now - self._away[peer], 1e-9) if peer in self._away else 0.0
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

"""Which members the leader calls present: those that answer at once, others away after a while. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# A lost connection mostly comes back within an election timeout; twice that is away.
AWAY_ELECTION_TIMEOUTS = 2.0


class Presence:
    """Remembers since when members have not answered. Times are seconds of a clock passed in."""

    def __init__(self, election_timeout_s: float) -> None:
        self.away_after_s = AWAY_ELECTION_TIMEOUTS * election_timeout_s
        self._gone_since: dict[str, float] = {}

    def changes(
        self, listed: Mapping[str, bool], answering: Iterable[str], now: float
    ) -> list[tuple[str, bool, str]]:
        """What to say: (peer, present, reason). `listed` is what the table says now."""
        there = set(answering)
        said = []
        for peer, present in listed.items():
            if peer in there:
                self._gone_since.pop(peer, None)
                if not present:
                    said.append((peer, True, "answers"))
                continue
            since = self._gone_since.setdefault(peer, now)
            if present and now - since >= self.away_after_s:
                said.append((peer, False, f"no answer for {now - since:.0f} s"))
        for peer in set(self._gone_since) - set(listed):
            del self._gone_since[peer]
        return said

"""The challenges that a leader has given out and that nobody has answered yet. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chorus.election.proof import fresh

# An honest answer takes one round trip and two HMACs.
EXPIRY_S: Final = 10.0
# One per peer, as a joining agent asks one leader at a time. More peers than a mesh has connection slots for.
CHALLENGES_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class _Given:
    challenge: str
    nonce: str
    at: float


class Challenges:
    """Each is for one peer, counts once and expires. When there are too many, the oldest goes."""

    def __init__(self) -> None:
        # In the order in which they were given.
        self._given: dict[str, _Given] = {}

    def __len__(self) -> int:
        return len(self._given)

    def give(self, peer: str, nonce: str, now: float) -> str:
        """A new challenge for this peer, in the place of an earlier one."""
        self._given.pop(peer, None)
        for old in [other for other, given in self._given.items() if now - given.at > EXPIRY_S]:
            del self._given[old]
        if len(self._given) >= CHALLENGES_MAX:
            del self._given[next(iter(self._given))]
        challenge = fresh()
        self._given[peer] = _Given(challenge, nonce, now)
        return challenge

    def take(self, peer: str, now: float) -> tuple[str, str] | None:
        """(challenge, nonce) of this peer's challenge, which is used up by that; None when there is none."""
        given = self._given.pop(peer, None)
        if given is None or now - given.at > EXPIRY_S:
            return None
        return given.challenge, given.nonce

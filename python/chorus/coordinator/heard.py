"""What a coordinator keeps of gossip, within bounds: cancels that came before their task, and how much of the
log each signer has used lately. Pure; times are seconds of a clock passed in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

# A cancel that came before its task is remembered so long, and so many of them: of one signer, who may have a
# hundred open tasks, and in all. The oldest goes first.
CANCEL_KEPT_S: Final = 3600.0
CANCELS_MAX_PER_SIGNER: Final = 100
CANCELS_MAX: Final = 4_096

WINDOW_S: Final = 60.0
# Entries that gossip of one signer causes in a minute. A stranger's hundred open tasks may all be announced
# at once, and some of them cancelled; a member has as much more room as in the table.
ENTRIES_MAX_PER_STRANGER: Final = 120
ENTRIES_MAX_PER_MEMBER: Final = 1_200
# Of all strangers together, as an identity costs nothing: entries, and their bytes, for the log keeps them.
ENTRIES_MAX_OF_STRANGERS: Final = 600
BYTES_MAX_OF_STRANGERS: Final = 8 * 1024 * 1024


class EarlyCancels:
    """Cancels of tasks that the table does not have. None of them is in the log."""

    def __init__(self) -> None:
        # The oldest first.
        self._kept: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, task_id: str, signer: str, reason: str, now: float) -> None:
        """Remembers a cancel; what is too old or too much is forgotten."""
        self._forget_old(now)
        self._take(task_id, signer)
        if self._of[signer] >= CANCELS_MAX_PER_SIGNER:
            self._take(*next(key for key in self._kept if key[1] == signer))
        elif len(self._kept) >= CANCELS_MAX:
            self._take(*next(iter(self._kept)))
        self._kept[task_id, signer] = (now, reason)
        self._of[signer] += 1

    def take(self, task_id: str, submitter: str, now: float) -> str | None:
        """The reason of the cancel that a task's own submitter sent before it, which is then forgotten."""
        self._forget_old(now)
        return self._take(task_id, submitter)

    def _forget_old(self, now: float) -> None:
        while self._kept:
            key, (at, _) = next(iter(self._kept.items()))
            if now - at <= CANCEL_KEPT_S:
                return
            self._take(*key)

    def _take(self, task_id: str, signer: str) -> str | None:
        kept = self._kept.pop((task_id, signer), None)
        if kept is None:
            return None
        self._of[signer] -= 1
        if not self._of[signer]:
            del self._of[signer]
        return kept[1]


@dataclass(slots=True)
class Usage:
    """What gossip has put into the log in the present minute, and what it is about to put there."""

    _began: float = 0.0
    _of: Counter[str] = field(default_factory=Counter)
    _strangers: int = 0
    _strangers_bytes: int = 0
    # Whether it has been said in this minute that something was dropped.
    told: bool = False

    def full(self, signer: str, size: int, now: float, *, stranger: bool) -> str | None:
        """Why no entry of the signer is proposed now, in words; None when there is room."""
        self._roll(now)
        limit = ENTRIES_MAX_PER_STRANGER if stranger else ENTRIES_MAX_PER_MEMBER
        if self._of[signer] >= limit:
            return f"{limit} entries of one signer in a minute"
        if stranger and self._strangers >= ENTRIES_MAX_OF_STRANGERS:
            return f"{ENTRIES_MAX_OF_STRANGERS} entries of strangers in a minute"
        if stranger and self._strangers_bytes + size > BYTES_MAX_OF_STRANGERS:
            return f"{BYTES_MAX_OF_STRANGERS} bytes of strangers in a minute"
        return None

    def charge(self, signer: str, size: int, now: float, *, stranger: bool) -> None:
        """Counts an entry."""
        self._roll(now)
        self._of[signer] += 1
        if stranger:
            self._strangers += 1
            self._strangers_bytes += size

    def _roll(self, now: float) -> None:
        if now - self._began >= WINDOW_S:
            self._began, self._strangers, self._strangers_bytes, self.told = now, 0, 0, False
            self._of.clear()

"""Who is not asked again yet for a task, because it declined or did not answer. Pure."""

from __future__ import annotations

FIRST_S = 1.0
MAX_S = 60.0


class Exclusions:
    """A pause for each pair of task and member, doubled each time. Times are seconds of a clock passed in."""

    def __init__(self) -> None:
        self._until: dict[str, dict[str, tuple[float, float, str]]] = {}

    def add(self, task_id: str, peer: str, reason: str, now: float) -> None:
        """The member declined, or did not answer."""
        pairs = self._until.setdefault(task_id, {})
        _, pause, _ = pairs.get(peer, (0.0, FIRST_S / 2, ""))
        pause = min(pause * 2, MAX_S)
        pairs[peer] = (now + pause, pause, reason)

    def why(self, task_id: str, peer: str, now: float) -> str | None:
        """Why the member is not asked now; None when it may be."""
        known = self._until.get(task_id, {}).get(peer)
        return known[2] if known is not None and known[0] > now else None

    def forget(self, task_id: str) -> None:
        """The task was taken or has ended."""
        self._until.pop(task_id, None)

    def clear(self) -> None:
        """This agent leads no longer."""
        self._until.clear()

    def next_end(self, now: float) -> float | None:
        """When the next pause ends."""
        ends = [until for pairs in self._until.values() for until, _, _ in pairs.values() if until > now]
        return min(ends, default=None)

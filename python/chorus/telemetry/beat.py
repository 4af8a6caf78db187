"""Which beat it is: the pulse's while it comes, the agent's own without one. Pure; times are seconds of a
clock passed in.

pulse -> own: no frame for one and a half of its beats, or for one own beat since the connection went
own -> pulse: the next frame that fits
"""

from __future__ import annotations

from typing import Final, Literal

from chorus.telemetry.frames import BeatFrame

OWN_BPM: Final = 2.0
OWN_INTERVAL_S: Final = 60.0 / OWN_BPM
# Beats of a pulse are awaited this many of its intervals.
PATIENCE: Final = 1.5
# Half of the shortest interval that a tempo allows: what comes sooner is no beat.
FASTEST_S: Final = 60.0 / 1000 / 2

Dropped = Literal["other_cluster", "repeat", "too_fast"]


class Beat:
    """The present beat."""

    def __init__(self, cluster_id: str, now: float) -> None:
        self._cluster_id = cluster_id
        self.index = 0
        self.source: Literal["own", "pulse"] = "own"
        self.interval_s = OWN_INTERVAL_S
        # When the next own beat is due, if no frame comes before.
        self.due = now
        self.frame: BeatFrame | None = None
        self._heard_at: float | None = None
        self._own_cluster = False

    def hear(self, frame: BeatFrame, now: float) -> Dropped | None:
        """Takes a frame of the pulse; why not, when it is dropped.

        The operator chose the server, so that a pulse of another name is followed, but never beside one of
        this agent's own cluster.
        """
        own = frame.cluster_id == self._cluster_id
        if self._own_cluster and not own:
            return "other_cluster"
        before = self.frame if self.source == "pulse" else None
        if before is not None and (before.beat_index, before.window_id) == (
            frame.beat_index,
            frame.window_id,
        ):
            return "repeat"
        if self._heard_at is not None and now - self._heard_at < FASTEST_S:
            return "too_fast"
        self._own_cluster = own
        self.frame, self._heard_at = frame, now
        self.index, self.source, self.interval_s = frame.beat_index, "pulse", frame.interval_s
        self.due = now + PATIENCE * self.interval_s
        return None

    def lost(self, now: float) -> None:
        """The connection that brought the pulse is gone."""
        self._own_cluster = False
        self.due = min(self.due, now + OWN_INTERVAL_S)

    def tick(self, now: float) -> bool:
        """Whether an own beat begins now."""
        if now < self.due:
            return False
        self.index += 1
        self.source, self.interval_s = "own", OWN_INTERVAL_S
        # After a sleep of the machine one beat, not all that were missed.
        self.due = max(self.due + OWN_INTERVAL_S, now)
        return True

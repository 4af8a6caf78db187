"""The beats of the reference BACKBEAT server, true ones and those of its faults. Time is an argument."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from chorus.telemetry.frames import BEAT_TYPE, FRAME_MAX_BYTES
from chorus.telemetry.hlc import Clock

Fault = Literal["none", "slow", "wrong", "silent", "lying", "garbage", "restarted"]
FAULTS: Final[tuple[str, ...]] = get_args(Fault)
# A window is so many beats; the first of them is its downbeat.
WINDOW_BEATS: Final = 8
_PHASES: Final = ("plan", "execute", "review")


class Pulse:
    """Counts the beats of one cluster."""

    def __init__(self, cluster_id: str, tempo_bpm: float) -> None:
        self._cluster_id, self._tempo_bpm = cluster_id, tempo_bpm
        self._clock = Clock("backbeat")
        self.restart()

    def restart(self) -> None:
        """Begins at beat 0 of a new window."""
        self._index = -1
        self._window = secrets.token_hex(16)

    def beat(self, fault: Fault, now: float) -> bytes:
        """The next beat as an event, or what the fault makes of it; empty for silence. `now` in seconds
        since 1970.
        """
        self._index += 1
        if self._index % WINDOW_BEATS == 0:
            self._window = secrets.token_hex(16)
        frame = self._frame(now)
        match fault:
            case "silent" | "wrong":
                return b""
            case "lying":
                return b"".join(map(_event, _lies(frame)))
            case "garbage":
                return _garbage()
        return _event(frame)

    def _frame(self, now: float) -> dict[str, Any]:
        ends = datetime.fromtimestamp(now + 60.0 / self._tempo_bpm, UTC)
        return {
            "type": BEAT_TYPE,
            "cluster_id": self._cluster_id,
            "beat_index": self._index,
            "downbeat": self._index % WINDOW_BEATS == 0,
            "phase": _PHASES[self._index % len(_PHASES)],
            "hlc": self._clock.tick(int(now)),
            "deadline_at": ends.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "tempo_bpm": self._tempo_bpm,
            "window_id": self._window,
            "metadata": {"server": "chorusctl dev backbeat"},
        }


def _lies(frame: dict[str, Any]) -> list[dict[str, Any]]:
    """Frames each of which does not fit in one thing."""
    changes: list[dict[str, Any]] = [
        {"tempo_bpm": 5000},
        {"tempo_bpm": "2"},
        {"beat_index": -1},
        {"beat_index": 1.5},
        {"downbeat": 1},
        {"phase": "rest"},
        {"hlc": "0000:0000:000G"},
        {"deadline_at": "soon"},
        {"window_id": "none"},
        {"cluster_id": "a b"},
        {"type": "backbeat.beatframe.v2"},
        {"surprise": True},
    ]
    without = {name: value for name, value in frame.items() if name != "window_id"}
    return [without, *({**frame, **change} for change in changes)]


def _garbage() -> bytes:
    """Lines that are no event, an event that is no JSON, and one that is far too long."""
    noise = secrets.token_bytes(512).replace(b"\n", b"")
    long = b"data: " + b"x" * (4 * FRAME_MAX_BYTES) + b"\n\n"
    return (
        noise + b"\n\ndata: " + noise + b"\n\ndata: {\n\ndata\n\n" + b"data: " + b"[" * 5000 + b"\n\n" + long
    )


def _event(frame: dict[str, Any]) -> bytes:
    return b"event: beat\ndata: " + json.dumps(frame).encode() + b"\n\n"

"""Which programs of the agent ended when they should not have: written by the parent, read for health. Pure
but for the file.

`crashes.json` in the run directory maps a program's name to its `Crashes`; a program that never crashed is
not in it. `unresponsive.NAME` there tells the next life of a program that its last one was ended because it
did not answer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

# Crashes this close together are one illness: the agent is not ready while it lasts.
REPEATING_WITHIN_MS = 60_000
REPEATING_COUNT = 3
# How many times of crashes are kept for each program.
TIMES_KEPT = 10

State = Literal["running", "restarting", "fatal"]


@dataclass(frozen=True, slots=True)
class Crashes:
    """One program's record since the agent started. Times are milliseconds since the epoch, newest last."""

    count: int = 0
    times_ms: tuple[int, ...] = ()
    state: State = "restarting"
    # When the parent will start it again; supervisord has given up. Only in state fatal.
    next_start_ms: int | None = None
    # How many of them were ended by the parent because they lived and did not answer.
    unresponsive: int = 0

    def crashed(self, now_ms: int, *, unresponsive: bool = False) -> Crashes:
        """After one more crash."""
        times = (*self.times_ms, now_ms)[-TIMES_KEPT:]
        return replace(
            self,
            count=self.count + 1,
            times_ms=times,
            state="restarting",
            next_start_ms=None,
            unresponsive=self.unresponsive + unresponsive,
        )

    def repeating(self, now_ms: int) -> bool:
        """Whether it dies again and again now."""
        recent = [time for time in self.times_ms if now_ms - time <= REPEATING_WITHIN_MS]
        return self.state == "fatal" or len(recent) >= REPEATING_COUNT


def repeating(path: Path, now_ms: int) -> list[str]:
    """The names of the programs that die again and again now."""
    return [name for name, crashes in sorted(load(path).items()) if crashes.repeating(now_ms)]


def load(path: Path) -> dict[str, Crashes]:
    """What the parent wrote; empty when nothing has crashed."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return {name: Crashes(**{**one, "times_ms": tuple(one["times_ms"])}) for name, one in content.items()}


def save(path: Path, records: dict[str, Crashes]) -> None:
    """Replaces the file in one step."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps({name: asdict(one) for name, one in records.items()}))
    temporary.rename(path)


def note_unresponsive(run_dir: Path, name: str) -> None:
    """Leaves the note for a program's next life; before the present one is killed."""
    _note(run_dir, name).touch(mode=0o600)


def take_unresponsive(run_dir: Path, name: str) -> bool:
    """Whether this program's last life was ended because it did not answer; true once."""
    try:
        _note(run_dir, name).unlink()
    except FileNotFoundError:
        return False
    return True


def _note(run_dir: Path, name: str) -> Path:
    return run_dir / f"unresponsive.{name}"

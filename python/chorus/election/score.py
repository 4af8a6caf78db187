"""How fit an agent is to lead, 0 to 1: uptime, capabilities, free resources, network, experience. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

# Each part counts so much; they add up to 1.
WEIGHTS = {"uptime": 0.2, "capabilities": 0.15, "resources": 0.25, "network": 0.25, "experience": 0.15}

# Where a part that grows without bound reaches one half.
UPTIME_HALF_S = 600.0
TASKS_HALF = 50.0
RTT_HALF_MS = 50.0
EXPERTISE_FULL = 8
CAPACITY_FULL = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """What the score is made of."""

    uptime_s: float = 0.0
    expertise: int = 0
    max_tasks: int = 0
    active: int = 0
    load_per_core: float = 0.0
    free_memory: float = 1.0
    members: int = 1
    connected: int = 0
    rtt_ms: float = 0.0
    tasks_done: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """The score and its parts."""

    total: float
    parts: dict[str, float] = field(default_factory=dict)


def score(figures: Figures, weights: dict[str, float] | None = None) -> Score:
    """Each part 0 to 1, and their weighted sum."""
    others = max(0, figures.members - 1)
    reached = 1.0 if others == 0 else min(1.0, figures.connected / others)
    busy = figures.active / figures.max_tasks if figures.max_tasks else 1.0
    parts = {
        "uptime": _saturating(figures.uptime_s, UPTIME_HALF_S),
        "capabilities": (
            0.5 * min(1.0, figures.expertise / EXPERTISE_FULL)
            + 0.5 * min(1.0, figures.max_tasks / CAPACITY_FULL)
        ),
        "resources": (
            0.4 * max(0.0, 1 - busy)
            + 0.3 * max(0.0, 1 - figures.load_per_core)
            + 0.3 * min(1.0, max(0.0, figures.free_memory))
        ),
        "network": reached * RTT_HALF_MS / (RTT_HALF_MS + max(0.0, figures.rtt_ms)),
        "experience": _saturating(figures.tasks_done, TASKS_HALF),
    }
    weigh = weights or WEIGHTS
    total = sum(weigh.get(name, 0.0) * value for name, value in parts.items())
    return Score(
        round(min(1.0, max(0.0, total)), 4), {name: round(value, 4) for name, value in parts.items()}
    )


def _saturating(value: float, half: float) -> float:
    return max(0.0, value) / (max(0.0, value) + half)

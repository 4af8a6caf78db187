"""What a run has used of its budgets, and what the model is told of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from chorus.mind.run.records import note, number_of

# From here on the model is told, once for each budget.
TELL_AT: Final = 0.8
_MARGIN_MAX_S: Final = 5.0
_MARGIN_SHARE: Final = 0.1

# By budget: the name in `ended_by`.
_ENDS: Final = {"steps": "steps", "tokens": "tokens", "usd": "money"}


@dataclass(slots=True)
class Used:
    """Steps, tokens (in and out) and US dollars so far."""

    steps: int = 0
    tokens: int = 0
    usd: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        """Counts what a reply, a plan or a summary cost."""
        self.tokens += max(0, number_of(record, "tokens_in")) + max(0, number_of(record, "tokens_out"))
        usd = record.get("usd")
        if isinstance(usd, int | float) and usd > 0:
            self.usd += usd


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one run; None: no limit. `timeout_s` counts from `began` (seconds since 1970)."""

    steps: int | None
    tokens: int | None
    usd: float | None
    timeout_s: float | None
    began: float | None

    @classmethod
    def of(cls, start: dict[str, Any], began: float | None) -> Budget:
        """The budget that a `start` record names."""
        limits = start.get("budget")
        limits = limits if isinstance(limits, dict) else {}
        steps, tokens = _limit(limits.get("steps")), _limit(limits.get("tokens"))
        return cls(
            steps=None if steps is None else int(steps),
            tokens=None if tokens is None else int(tokens),
            usd=_limit(limits.get("usd")),
            timeout_s=_limit(start.get("timeout_s")),
            began=began,
        )

    def left_s(self, now: float) -> float | None:
        """Seconds until the task's time is over."""
        if self.timeout_s is None or self.began is None:
            return None
        return self.began + self.timeout_s - now

    @property
    def margin_s(self) -> float:
        """How long before the end of the task's time nothing is begun any more.

        A model that is away until then ends the run as that, and not as a task that took too long.
        """
        return min(_MARGIN_MAX_S, _MARGIN_SHARE * (self.timeout_s or 0.0))

    def ended(self, used: Used) -> tuple[str, str] | None:
        """`ended_by` and the reason, when a budget is used up."""
        for name, limit in (("steps", self.steps), ("tokens", self.tokens), ("usd", self.usd)):
            if limit is not None and getattr(used, name) >= limit:
                return _ENDS[name], f"the budget of {limit:g} {_unit(name)} is used up"
        return None

    def warning(self, used: Used, now: float, told: set[str]) -> dict[str, Any] | None:
        """The note for a budget that is nearly used up and of which nothing was said yet."""
        for name, limit in (("steps", self.steps), ("tokens", self.tokens), ("usd", self.usd)):
            so_far = getattr(used, name)
            if limit is not None and so_far >= TELL_AT * limit and f"budget-{name}" not in told:
                text = f"{so_far:g} of {limit:g} {_unit(name)} are used. Come to an end, then call finish."
                return note("budget", f"budget-{name}", text)
        left = self.left_s(now)
        if left is None or self.timeout_s is None or "budget-time" in told:
            return None
        if left <= (1 - TELL_AT) * self.timeout_s:
            left_s = f"{max(left, 0):.0f} of {self.timeout_s:g} seconds"
            text = f"{left_s} are left. Come to an end, then call finish."
            return note("budget", "budget-time", text)
        return None


def _unit(name: str) -> str:
    return "US dollars" if name == "usd" else name


def _limit(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None

"""The licence of a running agent as a machine: `unlicensed → valid ⇄ grace → expired`, `suspended` from any.

Pure: time and answers are arguments. Times are seconds of one clock that never goes back (`moments`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from chorus.license.refusals import Reason

Name = Literal["unlicensed", "valid", "grace", "expired", "suspended"]
# An agent with one of these ends; it gets a licence again only by another start.
ENDED: Final = frozenset({"expired", "suspended"})


@dataclass(frozen=True, slots=True)
class LicenceState:
    """What is known of the licence.

    `checked` is the time of the last successful check, None before the first; `reason` and `detail` say why
    the licence is not valid, or not checked.
    """

    name: Name = "unlicensed"
    checked: float | None = None
    reason: Reason | None = None
    detail: str = ""
    # Whether it ended by an outage that was longer than the grace.
    outlasted: bool = False

    @property
    def holds(self) -> bool:
        """Whether the agent may run."""
        return self.name in ("valid", "grace")

    @property
    def ended(self) -> bool:
        """Whether the agent has to end."""
        return self.name in ENDED

    def granted(self, now: float) -> LicenceState:
        """A check succeeded."""
        if self.ended:
            return self  # it is ending already
        return LicenceState("valid", now)  # unlicensed → valid, grace → valid

    def unanswered(self, now: float, grace_s: float, reason: Reason, detail: str) -> LicenceState:
        """A check came to nothing: the server is away, or what came was not its word."""
        if self.ended:
            return self
        if self.checked is None:
            return replace(self, reason=reason, detail=detail)  # unlicensed stays: fails closed
        out = now - self.checked >= grace_s
        # valid → grace, grace → expired
        return LicenceState("expired" if out else "grace", self.checked, reason, detail, outlasted=out)

    def denied(self, reason: Reason, detail: str) -> LicenceState:
        """KACHING said no."""
        if self.ended:
            return self
        if reason is Reason.SUSPENDED:
            return LicenceState("suspended", self.checked, reason, detail)  # any → suspended
        name: Name = "unlicensed" if self.checked is None else "expired"
        return LicenceState(name, self.checked, reason, detail)

    def passed(self, now: float, grace_s: float) -> LicenceState:
        """Time went by."""
        if self.name == "grace" and self.checked is not None and now - self.checked >= grace_s:
            return replace(self, name="expired", outlasted=True)  # grace → expired
        return self


def remembered(checked: float) -> LicenceState:
    """The state of an agent that starts with a token of an earlier check, before it has asked."""
    return LicenceState("valid", checked)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Spares a server that fails: after five failures in a row it is left alone for 30 s, then asked once."""

    failures: int = 0
    open_until: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long the server is still to be left alone; 0: it may be asked."""
        return max(0.0, self.open_until - now)

    def failed(self, now: float) -> Breaker:
        """After a failure. Another one after the pause opens it again at once."""
        failures = self.failures + 1
        return Breaker(failures, now + BREAKER_OPEN_S if failures >= BREAKER_FAILURES else 0.0)

    def succeeded(self) -> Breaker:
        """After an answer, also one that says no."""
        return Breaker()


BREAKER_FAILURES: Final = 5
BREAKER_OPEN_S: Final = 30.0
# A lease is renewed at a third of it, so that two renewals may fail.
LEASE_PART: Final = 1 / 3
# Agents that began together do not ask together.
JITTER: Final = 0.1
RETRY_FIRST_S: Final = 1.0


def renewal_s(lease_s: float, chance: float) -> float:
    """Seconds from a successful check to the next one. `chance` is a random number from 0 to 1."""
    return lease_s * LEASE_PART * (1 + JITTER * (2 * chance - 1))


def retry_s(lease_s: float, breaker: Breaker, now: float, chance: float) -> float:
    """Seconds from a failed check to the next one: soon at first, then as the breaker has it."""
    if wait := breaker.wait_s(now):
        return wait
    soon = RETRY_FIRST_S * float(2 ** max(0, breaker.failures - 1)) * (1 + JITTER * (2 * chance - 1))
    return min(soon, renewal_s(lease_s, chance))

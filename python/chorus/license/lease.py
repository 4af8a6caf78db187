"""The lease of one agent from its start to its end: asked for, renewed, carried through an outage, given
back.

Rules are in `states`; here are the clock, the disk, and KACHING.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chorus.license import cache
from chorus.license.client import DEADLINE_S, Answer, Kaching, Sign
from chorus.license.keys import PinnedKey
from chorus.license.moments import Moments
from chorus.license.refusals import Denied, LicenceRefused, NoAnswer, Reason
from chorus.license.states import Breaker, LicenceState, remembered, renewal_s, retry_s
from chorus.license.status import LicenceStatus
from chorus.license.token import (
    Claims,
    check_mine,
    check_nonce,
    check_times,
    read_token,
    secret_of,
)

NONCE_BYTES: Final = 16
# How often the newest time ever seen is written down, besides with every check.
KEEP_EVERY_S: Final = 60.0
# How long before the end of the grace the last question is asked, as a part of it, and at most a deadline.
LAST_PART: Final = 0.1


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks, and for what. `cluster_id` is "" where the licence is to name it, `secret` b"" where the
    licence is to give it.
    """

    license_id: str
    cluster_id: str
    agent_id: str
    peer_id: str
    version: str
    secret: bytes
    keys: tuple[PinnedKey, ...]
    grace_s: float


@dataclass(frozen=True, slots=True)
class Clocks:
    """The machine's clocks, in seconds. The monotonic one counts sleep of the machine too."""

    wall: Callable[[], float] = time.time
    ticks: Callable[[], float] = field(default=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass(frozen=True, slots=True)
class Granted:
    """A verified token and the cluster secret that goes with it, b"" where there is none."""

    token: str
    claims: Claims
    secret: bytes


class Lease:
    """One agent's lease. `tell` is called with the status after each change of it."""

    def __init__(
        self,
        holder: Holder,
        url: str,
        sign: Sign,
        path: Path,
        *,
        clocks: Clocks | None = None,
        deadline_s: float = DEADLINE_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._holder, self._path = holder, path
        self._kaching = Kaching(url, holder.peer_id, sign, deadline_s=deadline_s)
        self._clocks, self._deadline_s = clocks or Clocks(), deadline_s
        self._chance = chance
        self._kept = cache.load(path)
        self._moments = Moments.begun(self._kept.newest, self._clocks.wall(), self._clocks.ticks())
        self._breaker = Breaker()
        self._granted: Granted | None = None
        # Whether the agent runs: its lease is renewed first, and its cluster secret stands.
        self._running = False
        self._checks = 0
        self._failures: Counter[str] = Counter()
        self.state = LicenceState()
        self.tell: Callable[[LicenceStatus], None] = lambda status: None

    @property
    def counts(self) -> tuple[int, int]:
        """How many checks there were, and how many of them failed."""
        return self._checks, self._failures.total()

    @property
    def why(self) -> str:
        """Why the licence does not hold, or was not checked, in words; "" while all is well."""
        if not self.state.outlasted:
            return self.state.detail
        grace = (
            f"the last successful check is longer ago than CHORUS_LICENSE_GRACE, {self._holder.grace_s:g} s"
        )
        return f"{self.state.detail}; {grace}"

    @property
    def status(self) -> LicenceStatus:
        """For health and metrics."""
        until = None
        if self.state.name == "grace" and self.state.checked is not None:
            until = self.state.checked + self._holder.grace_s
        return LicenceStatus(
            self.state.name,
            self.state.reason.value if self.state.reason else "",
            self.why,
            self.state.checked,
            until,
            self._checks,
            dict(self._failures),
            {} if self._granted is None else self._granted.claims.limits,
        )

    async def start(self) -> Granted:
        """A licence to start with. Raises `LicenceRefused` when KACHING says no, or is away and no token of
        an earlier check is young enough.
        """
        self._remember()
        await self.check()
        if not self.state.holds or self._granted is None:
            raise LicenceRefused(self.why, self.state.reason or Reason.REFUSED)
        self._running = True
        return self._granted

    async def run(self) -> LicenceState:
        """Renews until the licence has ended; returns why."""
        while not self.state.ended:
            await self._pause(self._next_s())
            if not self.state.ended:
                await self.check()
        return self.state

    async def give_back(self) -> str:
        """At a stop: frees the seat, once; why not, or "". A server that has been away for all of the grace
        is not asked.
        """
        granted, self._granted = self._granted, None
        if granted is None or self.state.outlasted:
            return ""
        try:
            await self._kaching.give_back(granted.claims.lease_id)
        except LicenceRefused as refused:
            return str(refused)
        return ""

    def _next_s(self) -> float:
        lease_s = 0.0 if self._granted is None else self._granted.claims.lease_ttl_s
        if self.state.name == "valid":
            return renewal_s(lease_s, self._chance())
        wait = retry_s(lease_s, self._breaker, self._clocks.ticks(), self._chance())
        if self.state.checked is None:
            return wait
        # However long the breaker would have it wait, the server is asked once more before the grace ends.
        grace_s = self._holder.grace_s
        last = self.state.checked + grace_s - min(self._deadline_s, grace_s * LAST_PART) - self._now()
        return min(wait, last) if last > 0 else wait

    async def _pause(self, seconds: float) -> None:
        """Waits, wakes where the grace ends, and now and then writes down what time it is."""
        end = self._clocks.ticks() + seconds
        while not self.state.ended and (left := end - self._clocks.ticks()) > 0:
            if self.state.name == "grace" and self.state.checked is not None:
                left = min(left, max(0.0, self.state.checked + self._holder.grace_s - self._now()) + 0.01)
            await asyncio.sleep(min(left, KEEP_EVERY_S))
            self._to(self.state.passed(self._now(), self._holder.grace_s))
            self._keep(self._kept)

    async def check(self) -> None:
        """Asks KACHING once: for more time where there is a lease, else, or if it knows none, for a lease."""
        self._checks += 1
        try:
            granted = await self._ask()
        except LicenceRefused as refused:
            self._failures[refused.reason] += 1
            if isinstance(refused, Denied):
                self._breaker = self._breaker.succeeded()
                # Whoever was refused does not go on by an older word.
                self._keep(cache.Kept())
                self._to(self.state.denied(refused.reason, str(refused)))
                return
            self._breaker = self._breaker.failed(self._clocks.ticks())
            now = self._now()
            self._to(self.state.unanswered(now, self._holder.grace_s, refused.reason, str(refused)))
            self._keep(self._kept)
            return
        self._breaker = self._breaker.succeeded()
        self._granted = granted
        # A fresh answer that is valid by this machine's clock: the clock is right, even if it was wrong once.
        wall = self._clocks.wall()
        self._moments = Moments(wall, self._clocks.ticks())
        self._keep(
            cache.Kept(
                token=granted.token, lease=granted.claims.lease_id, secret=granted.secret.hex(), checked=wall
            )
        )
        self._to(self.state.granted(wall))

    async def _ask(self) -> Granted:
        holder = self._holder
        if self._running and self._granted is not None:
            try:
                return await self._renew(self._granted)
            except Denied as refused:
                if refused.reason is Reason.SUSPENDED:
                    raise
                # The lease is gone, not yet the licence: what KACHING says of that counts.
        nonce = os.urandom(NONCE_BYTES).hex()
        try:
            answer = await self._kaching.validate(
                holder.license_id, holder.cluster_id, holder.agent_id, holder.version, nonce
            )
        except Denied as refused:
            if refused.reason is not Reason.SEATS_USED_UP or self._granted is None:
                raise
            # The seat may be this agent's own, from before it was killed.
            with contextlib.suppress(LicenceRefused):
                return await self._renew(self._granted)
            raise
        return self._verified(answer, nonce)

    async def _renew(self, held: Granted) -> Granted:
        nonce = os.urandom(NONCE_BYTES).hex()
        return self._verified(await self._kaching.renew(held.claims.lease_id, nonce), nonce)

    def _verified(self, answer: Answer, nonce: str) -> Granted:
        """Raises `NoAnswer` for what KACHING cannot have meant for this agent, `Denied` for a no."""
        claims = self._checked(answer.token)
        check_nonce(claims, nonce)
        check_times(claims, self._clocks.wall())
        held = self._granted
        if self._running and held is not None:
            # The network key of a running agent stands: another secret takes another start, within the grace.
            try:
                return Granted(answer.token, claims, secret_of(claims, held.secret, ""))
            except Denied as refused:
                raise NoAnswer(str(refused), refused.reason) from None
        return Granted(answer.token, claims, secret_of(claims, self._holder.secret, answer.secret))

    def _checked(self, token: str) -> Claims:
        holder = self._holder
        claims = read_token(token, holder.keys)
        check_mine(
            claims,
            license_id=holder.license_id,
            cluster_id=holder.cluster_id,
            peer_id=holder.peer_id,
            agent_id=holder.agent_id,
        )
        return claims

    def _remember(self) -> None:
        """The token of an earlier check, if it still is one; the times in it are the grace's affair."""
        if not self._kept.token:
            return
        try:
            claims = self._checked(self._kept.token)
            secret = secret_of(claims, self._holder.secret, "") or bytes.fromhex(self._kept.secret)
        except LicenceRefused:
            return
        self._granted = Granted(self._kept.token, claims, secret)
        self.state = remembered(self._kept.checked)

    def _now(self) -> float:
        return self._moments.now(self._clocks.ticks())

    def _keep(self, kept: cache.Kept) -> None:
        self._kept = kept.model_copy(update={"newest": self._now()})
        # A full disk must not end an agent whose licence holds; what is there stays older than it might be.
        with contextlib.suppress(OSError):
            cache.save(self._path, self._kept)

    def _to(self, state: LicenceState) -> None:
        self.state = state
        self.tell(self.status)

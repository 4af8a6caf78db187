"""Whether an agent that joins has a licence of KACHING and a seat of its own, as the leader sees it.

Nothing is asked where this agent has a development licence. The token says which lease it is for; what leases
the members have, they say themselves, as a lease may change while an agent runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Final

from pydantic import Field

from chorus.config import Settings
from chorus.election.peers import PEER_SERVICE, Said, read
from chorus.hub import Hub, HubError, HubRefused
from chorus.license import LicenceRefused, cache, status
from chorus.license.keys import read_keys
from chorus.license.refusals import Reason, said
from chorus.license.token import Claims, check_times, check_usable, read_token

METHOD: Final = "lease"
ASK_TIMEOUT_S: Final = 2.0
NO_TOKEN: Final = (
    "this mesh takes in agents with a licence of KACHING alone, and this one shows none: set "
    "CHORUS_LICENSE_ID, CHORUS_KACHING_URL and CHORUS_KACHING_PUBLIC_KEY to what its operator gives you"
)


class LeaseSaid(Said):
    """A member's answer: its lease, None when it has none."""

    lease: Annotated[str, Field(max_length=512)] | None


class Seats:
    """The leader's check of who joins, and what this agent shows of its own licence."""

    def __init__(self, settings: Settings, hub: Hub, *, wall: Callable[[], float] = time.time) -> None:
        self._settings, self._hub, self._wall = settings, hub, wall
        # Of those whom this agent took in: they may not answer yet when the next one comes.
        self._taken: dict[str, str] = {}

    @property
    def licensed(self) -> bool:
        """Whether licences of KACHING are used."""
        return self._settings.license_kind == "production"

    @property
    def token(self) -> str | None:
        """What this agent shows when it joins; None where no licences are used."""
        return self._kept().token if self.licensed else None

    @property
    def lease(self) -> str | None:
        """This agent's own lease."""
        return (self._kept().lease or None) if self.licensed else None

    def check(self, peer: str, token: object) -> str | None:
        """The lease of a joining agent; None where no licences are used. Raises HubRefused with why not."""
        if not self.licensed:
            return None
        if not isinstance(token, str) or not token:
            raise HubRefused(NO_TOKEN)
        settings = self._settings
        try:
            claims = read_token(token, read_keys(settings.kaching_public_key.get_secret_value()))
            if claims.peer_id != peer:
                raise HubRefused(said(Reason.WRONG_PEER))
            check_usable(claims, settings.cluster_id, also=(peer,))
            self._check_times(claims)
        except LicenceRefused as refused:
            raise HubRefused(str(refused)) from None
        return claims.lease_id

    async def check_free(self, lease: str | None, others: Iterable[str]) -> None:
        """That no member of these, which are present, has the lease. Raises HubRefused."""
        if lease is None:
            return
        held = await asyncio.gather(*(self._lease_of(peer) for peer in others))
        if lease in held:
            raise HubRefused(said(Reason.LEASE_IN_USE))

    def took(self, peer: str, lease: str | None) -> None:
        """Remembers the lease of an agent that was taken in."""
        if lease is not None:
            self._taken[peer] = lease

    def forget_all_but(self, members: Iterable[str]) -> None:
        """Keeps what is known of these alone."""
        self._taken = {peer: self._taken[peer] for peer in members if peer in self._taken}

    async def _lease_of(self, peer: str) -> str | None:
        if peer == self._hub.peer_id:
            return self.lease
        try:
            reply = await self._hub.request(peer, PEER_SERVICE, METHOD, timeout=ASK_TIMEOUT_S)
            return read(LeaseSaid, reply.head).lease
        except HubError:
            return self._taken.get(peer)

    def _check_times(self, claims: Claims) -> None:
        # While this agent itself has no word of KACHING, another one cannot have a newer token either.
        now = status.load(self._settings.paths.license_status)
        outage = now is not None and now.state == "grace"
        check_times(claims, self._wall(), late_s=self._settings.license_grace_s if outage else 0.0)

    def _kept(self) -> cache.Kept:
        return cache.load(self._settings.paths.license)

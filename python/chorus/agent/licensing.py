"""The parent's part in a licence of KACHING: asking for it at the start, and telling the others of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from chorus.agent.entries import Entries
from chorus.agent.identity import agent_id_for
from chorus.agent.problems import StartupError, license_line
from chorus.agent.version import build_info
from chorus.config.load import Boot, given_secret
from chorus.license import Licence, LicenceRefused, status
from chorus.license.keys import read_keys
from chorus.process.logs import Logger
from chorus.wire.times import rfc3339_of

if TYPE_CHECKING:
    from chorus.license.lease import Granted, Lease


def lease_for(boot: Boot, peer_id: str, sign: Callable[[bytes], bytes], path: Path) -> Lease:
    """The lease of this agent, which nobody has asked for yet; `path` is where its token is kept."""
    # An agent with a development licence needs no HTTP in its parent.
    from chorus.license.lease import Holder, Lease

    holder = Holder(
        license_id=boot["CHORUS_LICENSE_ID"],
        cluster_id=boot["CHORUS_CLUSTER_ID"],
        agent_id=boot["CHORUS_AGENT_ID"] or agent_id_for(peer_id),
        peer_id=peer_id,
        version=build_info()[0],
        secret=given_secret(boot),
        keys=read_keys(boot["CHORUS_KACHING_PUBLIC_KEY"]),
        grace_s=boot["CHORUS_LICENSE_GRACE"],
    )
    return Lease(holder, boot["CHORUS_KACHING_URL"], sign, path)


def ask(lease: Lease) -> Granted:
    """The licence. Raises `StartupError` with the contract's line."""
    try:
        return asyncio.run(lease.start())
    except LicenceRefused as refused:
        raise StartupError(license_line(str(refused))) from None


def give_back(lease: Lease) -> None:
    """Frees the seat of an agent that has not done so by itself: of a start that went no further."""
    asyncio.run(lease.give_back())


def licence_of(granted: Granted, lease: Lease) -> Licence:
    """What was granted, and what an operator should know about it."""
    return Licence("production", granted.claims.max_agents, _notice(lease.status))


def _notice(said: status.LicenceStatus) -> str:
    if said.until is None:
        return ""
    until = rfc3339_of(said.until)
    return f"the licence was not checked, this agent runs on its last token until {until}: {said.detail}"


class LicenceTeller:
    """Writes each change down for the other processes, and says it once: in the output and in the log."""

    def __init__(self, path: Path, log: Logger, entries: Entries) -> None:
        self._path, self._log, self._entries = path, log, entries
        self._before: status.LicenceStatus | None = None

    def tell(self, now: status.LicenceStatus) -> None:
        """Called with the status at the start and after each change."""
        # Nobody's work waits for it: the next change, or the next minute, writes it again.
        with contextlib.suppress(OSError):
            status.save(self._path, now)
        before, self._before = self._before, now
        if before is None:
            # The entry `license_checked` of a start tells of a licence that is valid.
            if now.state != "valid":
                self._entry(now, None, [])
            return
        if (now.state, now.reason) != (before.state, before.reason):
            if now.state == "valid":
                self._log.info("the licence is checked again")
            elif now.state == "grace":
                self._log.warning(_notice(now), reason=now.reason)
        changed = sorted(name for name in now.limits if now.limits[name] != before.limits.get(name))
        if changed:
            said = {name: now.limits[name] for name in changed}
            self._log.info("the licence was renewed with other limits", **said)
        # Not for another reason of the same outage: a server that is away may fail in many ways.
        if changed or now.state != before.state:
            self._entry(now, before.state, changed)

    def _entry(self, now: status.LicenceStatus, before: str | None, changed: list[str]) -> None:
        said = {"state": now.state, "before": before, "reason": now.reason, "detail": now.detail}
        more = {"until": rfc3339_of(now.until), "changed": changed, "limits": dict(now.limits)}
        self._entries.add("license_changed", {**said, **more})

"""What the node writes into the agent's signed log: the agent's start and stop, its settings and licence,
peers that come and go, changes of the leader. Tasks and decisions are written by those who work on them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from chorus.config import Settings
from chorus.config.masked import Masked
from chorus.config.values import as_json
from chorus.hub import HubClosed, HubError, guard
from chorus.process import Process
from chorus.wire.log import LogType

# A mesh that comes up at once is written whole; peers or leaders that come and go all the time are counted.
BURST_ENTRIES: Final = 256
ENTRIES_PER_S: Final = 1.0
# The disk may be full or slow for a while; the start and the settings wait for it.
RETRY_S: Final = 1.0
# A stop does not wait longer for its own entry.
STOP_WAIT_S: Final = 2.0


class Allowance:
    """How many entries may be written now: a burst, then so many a second. Pure; time is an argument."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left, self._at = float(burst), 0.0

    def take(self, now: float) -> bool:
        """Whether one more may be written."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Journal:
    """Writes the node's entries, in the order of what happened."""

    def __init__(self, process: Process, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._process = process
        self._clock = clock
        self._allowance = Allowance(BURST_ENTRIES, ENTRIES_PER_S)
        self._up: set[str] = set()
        self._leader: tuple[int, str] | None = None
        self._skipped = 0
        self._begun = False

    async def run(self) -> None:
        """Writes the beginning, then what happens, until cancelled or the hub is closed."""
        while True:
            try:
                return await self._live()
            except HubClosed:
                return
            except HubError as error:
                self._process.log.warning("the log's entries about this agent pause", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _live(self) -> None:
        async with self._process.hub.events() as events:
            if not self._begun:
                await self._begin()
                self._begun = True
            # Those that were there before anybody listened.
            for peer in (await self._process.hub.net_state()).get("peers") or ():
                await self.note({"kind": "peer_up", "peer": peer["peer"]})
            await guard.each(events, self.note, "event", raising=(HubError,))

    async def _begin(self) -> None:
        settings = self._process.settings
        # The run directory belongs to one life of the agent: a core that was killed finds the mark.
        mark = settings.paths.journal_boot
        if _read(mark) == settings.boot_id:
            await self._write_surely("node_restarted", self._life())
            return
        await self._write_surely("agent_started", {**self._life(), "agent_id": settings.agent_id})
        licence = {
            "id": settings.license_shown,
            "kind": settings.license_kind,
            "cluster_id": settings.cluster_id,
            "checks": settings.license_checks,
            "failures": settings.license_failures,
        }
        await self._write_surely("license_checked", licence)
        await self._write_surely("configuration", {"settings": shown(settings)})
        # Only now: an entry that comes twice does less harm than one that is missing.
        mark.write_text(settings.boot_id)

    def _life(self) -> dict[str, Any]:
        return {"boot": self._process.settings.boot_id, "version": self._process.settings.version}

    async def note(self, event: dict[str, Any]) -> None:
        """Writes what one event of the core means, if it means anything to the log."""
        # What a slow disk made us miss; the core counts it.
        self._skipped += int(event.get("gap") or 0)
        type, data = self._entry(event)
        if type is None:
            return
        if not self._allowance.take(self._clock()):
            self._skipped += 1
            return
        if self._skipped:
            skipped, self._skipped = self._skipped, 0
            await self._write("events_skipped", {"count": skipped})
        await self._write(type, data)

    def _entry(self, event: dict[str, Any]) -> tuple[LogType | None, dict[str, Any]]:
        peer = str(event.get("peer") or "")
        match event.get("kind"):
            case "peer_up" if peer not in self._up:
                self._up.add(peer)
                return "peer_up", {"peer": peer}
            case "peer_down" if peer in self._up:
                self._up.discard(peer)
                return "peer_down", {"peer": peer}
            case "leader" if peer and self._leader != (event["term"], peer):
                before, self._leader = self._leader, (int(event["term"]), peer)
                own = peer == self._process.hub.peer_id
                data = {"term": event["term"], "leader": peer, "self": own}
                return "leader_changed", {**data, "before": before and before[1]}
            case "step_down":
                return "leader_stepped_down", {"term": event["term"], "reason": event.get("reason")}
        return None, {}

    async def end(self) -> None:
        """The last entry, while the core still lives."""
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await self._write("agent_stopped", {"boot": self._process.settings.boot_id})
        except TimeoutError:
            self._process.log.warning("the stop was not written into the log in time")

    async def _write(self, type: LogType, data: dict[str, Any]) -> bool:
        try:
            await self._process.hub.log_append(type, data)
        except HubClosed:
            return True  # the node ends; there is nothing to write into any more
        except HubError as error:
            self._process.log.warning("an entry of the log was not written", type=type, error=str(error))
            return False
        return True

    async def _write_surely(self, type: LogType, data: dict[str, Any]) -> None:
        while True:
            if await self._write(type, data):
                return
            await asyncio.sleep(RETRY_S)


def shown(settings: Settings) -> dict[str, Any]:
    """The settings without those that are secret; what else might hold one is for the sentinel to find."""
    said = as_json(settings)
    return {name: value for name, value in said.items() if not isinstance(getattr(settings, name), Masked)}


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None

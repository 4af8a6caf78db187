"""Keeps the agent's assignment while it runs: loads it anew when asked, tells the processes of a change, and
answers them about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

from chorus.agent.entries import Entries
from chorus.config import Assignment, Settings
from chorus.config.files import write_private
from chorus.config.values import as_json
from chorus.hub import Hub, HubError, HubInvalid, HubRefused, Request
from chorus.process.assignments import SERVICE, TOPIC
from chorus.process.logs import Logger
from chorus.whoosh import FETCH_TIMEOUT_S, Document, Load, in_thread, load_for, shown
from chorus.wire.times import rfc3339

# Loads are at least so far apart: ten signals within a second make three.
LOADS_APART_S: Final = 0.6
# A server that is away is asked again, first soon, then less and less often.
AGAIN_FIRST_S: Final = 2.0
AGAIN_MAX_S: Final = 60.0
# What the hub did not take is told again.
TELL_AGAIN_S: Final = 0.5
NO_URL: Final = "there is no assignment to load: ASSIGN_URL is not set"
RESTART: Final = "needs a restart"


class Assigning:
    """One agent's. `entries` takes what is for its log, `named` says whether the environment sets the agent's
    id, `loads` asks the server.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Assignment,
        first: Load | None,
        log: Logger,
        entries: Entries,
        *,
        named: bool = True,
        loads: Callable[[], Load] | None = None,
    ) -> None:
        self._settings, self._environment, self._log = settings, environment, log
        self._entries, self._named = entries, named
        self._loads = loads or (lambda: load_for(settings))
        self.current = settings.assignment
        self._number = 0
        # What the processes are told: what the core has the keys for.
        self._told = self._said()
        # Whether anything but the environment speaks for this agent, as ASSIGN_URL asks for.
        self._assigned = first is not None and first.document is not None
        # Whether the server is to be asked again by itself.
        self._again_s: float | None = None
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[dict[str, Any]]] = []
        self._news = asyncio.Event()
        self._report: dict[str, Any] | None = None
        if first is not None:
            before = as_json(environment)
            now = as_json(self.current)
            self._conclude(first, [name for name in now if now[name] != before[name]], [])

    # Loading

    def hangup(self) -> None:
        """SIGHUP: loads the assignment anew."""
        if not self._settings.assign_url:
            self._log.warning(f"SIGHUP: {NO_URL}")
            return
        self._asked.set()

    async def reload(self) -> dict[str, Any]:
        """Loads the assignment anew; what came of the first load that begins after this call."""
        if not self._settings.assign_url:
            raise HubRefused(NO_URL)
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._asked.set()
        return await waiting

    async def run(self) -> None:
        """Loads when it is asked, and serves the processes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve())
            group.create_task(self._load_when_asked())

    async def _load_when_asked(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._again_s and self._again_s * (0.75 + random.random() / 2)):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            waiting, self._waiting = self._waiting, []
            try:
                loaded = await in_thread(self._loads, FETCH_TIMEOUT_S + 1)
            except TimeoutError:
                loaded = Load(error=f"ASSIGN_URL did not answer within {FETCH_TIMEOUT_S:g} s")
            except Exception as error:
                loaded = Load(error=f"the assignment could not be loaded: {type(error).__name__}: {error}")
            report = self._take(loaded, asked=asked)
            for each in waiting:
                if not each.done():
                    each.set_result(report)
            await asyncio.sleep(LOADS_APART_S)

    def _take(self, loaded: Load, *, asked: bool) -> dict[str, Any]:
        """Acts on a load; what came of it."""
        changed: list[str] = []
        kept: list[str] = []
        # A copy is older than what runs, unless nothing but the environment speaks so far.
        if loaded.document is not None and (loaded.source == "server" or not self._assigned):
            self._assigned = True
            new = loaded.document.over(self._environment)
            before, after = as_json(self.current), as_json(new)
            changed = [name for name in after if after[name] != before[name]]
            kept = self._left_for_restart(loaded.document)
            if changed:
                self.current, self._number = new, self._number + 1
                self._write(new)
                self._news.set()
        if loaded.copy is not None:
            try:
                loaded.copy.save(self._settings.paths.assigned_json)
            except OSError as error:
                self._log.warning("the copy of the assignment was not kept", error=str(error))
        return self._conclude(loaded, changed, kept, asked=asked)

    def _left_for_restart(self, document: Document) -> list[str]:
        kept = []
        if not self._named and document.agent_id not in ("", self._settings.agent_id):
            kept.append(f"agent_id: {RESTART}")
        return kept

    def _write(self, new: Assignment) -> None:
        """For processes that begin from now on."""
        try:
            write_private(self._settings.paths.assignment_json, json.dumps(as_json(new)))
        except OSError as error:
            self._log.warning("the assignment was not written for processes to come", error=str(error))

    def _conclude(
        self, loaded: Load, changed: list[str], kept: list[str], *, asked: bool = True
    ) -> dict[str, Any]:
        settled = loaded.source == "server"
        # A document that is refused is refused again, until somebody mends it and asks for a load.
        again = not settled and (bool(loaded.error) or not self._assigned)
        self._again_s = None if not again else min((self._again_s or AGAIN_FIRST_S / 2) * 2, AGAIN_MAX_S)
        source = loaded.source or ("running" if self._assigned else "environment")
        report = {
            "source": source,
            "changed": changed,
            "kept": kept,
            "refused": list(loaded.refused),
            "error": loaded.error,
            "at": rfc3339(time.time_ns() // 1_000_000),
        }
        # A server that is asked again by itself and is away still is no news.
        news = asked or self._report is None or not _same(self._report, report)
        self._report = report
        if news:
            tell = self._log.info if settled and not kept else self._log.warning
            tell("assignment", **{name: value for name, value in report.items() if name != "at"})
            self._entries.add("assignment", report)
            self._news.set()
        return report

    # Serving

    async def _serve(self) -> None:
        while True:
            with contextlib.suppress(HubError):
                async with await Hub.connect(self._settings.paths.hub_socket, SERVICE) as hub:
                    await hub.offer(SERVICE, self._answer)
                    await self._tell(hub)
            await asyncio.sleep(TELL_AGAIN_S)

    async def _tell(self, hub: Hub) -> None:
        """Tells the processes of changes and loads."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._give_role(hub)
                await hub.publish_local(TOPIC, {**self._told, "load": self._report})
            except HubError:
                # The node is being started again; whoever begins meanwhile reads the file.
                await asyncio.sleep(TELL_AGAIN_S)
                self._news.set()

    async def _give_role(self, hub: Hub) -> None:
        """Gives the core the keys of the present role, before anybody hears of it. Raises HubError."""
        said = self._said()
        if said["number"] != self._told["number"]:
            try:
                await hub.call_service("node", "role", {"role": said["assignment"]["role"]})
            except HubInvalid as error:
                self._log.error("the core keeps the keys of its role", error=str(error))
        self._told = said

    async def _answer(self, request: Request) -> dict[str, Any]:
        match request.method:
            case "assignment":
                return self._told
            case "reload":
                return await self.reload()
            case "health":
                return self.health()
            case "status":
                return self.status()
        raise HubInvalid(f"{SERVICE} has no method {request.method!r}")

    def _said(self) -> dict[str, Any]:
        return {"number": self._number, "assignment": as_json(self.current)}

    def health(self) -> dict[str, Any]:
        """Whether the agent is what it is meant to be, and if not, why."""
        report = self._report
        if report is None:
            return {"ok": True, "detail": "from the environment"}
        why = report["error"] or "; ".join(report["refused"])
        if not self._assigned:
            detail = f"no assignment yet, the environment speaks alone: {why}"
        elif why:
            known = "the last good copy" if report["source"] == "copy" else "the running assignment"
            detail = f"{known} counts: {why}"
        else:
            detail = "as assigned"
        return {"ok": self._assigned, "detail": detail}

    def status(self) -> dict[str, Any]:
        """For `GET /api/v1/status`."""
        url = self._settings.assign_url
        return {
            "url": shown(url) if url else None,
            "last_load": self._report,
            **as_json(self.current),
        }


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a load only repeats that a server is away."""
    return bool(now["error"]) and {**before, "at": ""} == {**now, "at": ""}

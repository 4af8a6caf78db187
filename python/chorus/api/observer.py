"""Finds out how the agent is: when somebody asks, when its table changes, and now and then without either."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from chorus.api.checks import Answer, Findings, Verdict, judge, siblings_of
from chorus.api.context import TABLE, Context
from chorus.api.faults import Faults
from chorus.api.license import licence_detail, licence_status
from chorus.config import exposure
from chorus.hub import HubError, HubNotFound
from chorus.process import metrics
from chorus.process.assignments import SERVICE as PARENT
from chorus.process.crashes import Crashes, load
from chorus.wire.times import rfc3339

T = TypeVar("T")

# Answers are at most this old. A look asks every process: one a second was a fifth of what an idle agent took
# of the processor. While it is ready, nobody asks and the table does not change, QUIET_S pass between two.
PERIOD_S: Final = 1.0
QUIET_S: Final = 5.0
DEADLINE_S: Final = 0.9
# While the agent starts, whoever waits for it should not wait for the next look as well.
START_PERIOD_S: Final = 0.1
START_S: Final = 30.0
# The DHT is asked for this agent's own record; more often would only be traffic.
DHT_PERIOD_S: Final = 30.0
DHT_DEADLINE_S: Final = 5.0
# News of our health for watchers of the topic.
ANNOUNCE_PERIOD_S: Final = 30.0


class Observer:
    """Finds out how everything is."""

    def __init__(self, context: Context, backbeat: Callable[[], dict[str, Any]] | None = None) -> None:
        self.context = context
        self._backbeat = backbeat
        self._siblings = siblings_of(context.settings.ai.provider)
        self._begun = time.monotonic()
        self._seen: dict[str, float] = dict.fromkeys(self._siblings, self._begun)
        self._faults = Faults()
        self._looking = asyncio.Lock()
        self._looked = -math.inf
        self._dht_ok = False
        self._dht_latency_ms: float | None = None
        self._dht_next = 0.0
        self._dht_task: asyncio.Task[None] | None = None
        self._announced: dict[str, Any] | None = None
        self._announce_next = 0.0
        self.checked_at = ""
        self.findings: Findings | None = None
        self.verdict: Verdict | None = None
        self.last_heartbeat: Any = None

    async def run(self) -> None:
        """Keeps metrics and the news of this agent's health up to date, until cancelled."""
        with self.context.changes.watch(TABLE) as table:
            while True:
                started = time.monotonic()
                await self.fresh()
                try:
                    await self._announce()
                except Exception as error:
                    self._faults.tell(error, "the news of the agent's health")
                if self.verdict is not None and self.verdict.ready:
                    await table.changed(QUIET_S - PERIOD_S)
                    # A look at once would take the processor from the task that changed the table.
                    await asyncio.sleep(PERIOD_S)
                else:
                    await asyncio.sleep(max(0.05, self._period_s() - (time.monotonic() - started)))

    async def fresh(self) -> None:
        """Looks, unless that was done a moment ago. Those who ask at the same time share one look."""
        async with self._looking:
            if time.monotonic() - self._looked < self._period_s():
                return
            try:
                await self.observe()
            except Exception as error:
                # Siblings and peers say what this looks at: an odd answer costs one look, not the process.
                self._faults.tell(error, "a look at the agent's health")
                self.verdict = None
                self._looked = time.monotonic()

    def _period_s(self) -> float:
        """How old what is known may be."""
        starting = time.monotonic() - self._begun < START_S
        unready = self.verdict is not None and not self.verdict.ready
        return START_PERIOD_S if starting and unready else PERIOD_S

    async def observe(self) -> None:
        """One look at everything."""
        context, settings = self.context, self.context.settings
        self._ask_dht()
        network, raft, assignment, *answers = await asyncio.gather(
            _within(context.hub.net_state()),
            _within(context.hub.raft_status()),
            self._ask_parent(),
            *(self._ask(name) for name in self._siblings),
        )
        siblings = dict(zip(self._siblings, answers, strict=True))
        peers = len((network or {}).get("peers") or ())
        if network is None and siblings["node"].ok:
            siblings["node"] = Answer(False, "the core does not answer")
        crashes = _read_crashes(context)
        repeating = [name for name, one in crashes.items() if one.repeating(_now_ms())]
        leader = None if raft is None else raft.leader
        member, active = None, 0
        try:
            member = None if leader is None else context.table.member(leader)
            active = len(context.table.running_on(settings.peer_id))
        except sqlite3.Error as error:
            siblings["coordinator"] = Answer(False, f"the table cannot be read: {error}")
        self.findings = Findings(
            license=(licence := licence_status(settings)),
            license_detail=licence_detail(settings, licence),
            siblings=siblings,
            peers=peers,
            backbeat=None if self._backbeat is None else _said(self._backbeat()),
            role_keys=str((network or {}).get("role_keys") or "unknown"),
            clock_skew=bool((network or {}).get("clock_skew")),
            dht_enabled=settings.dht_enabled,
            dht_ok=self._dht_ok,
            dht_latency_ms=self._dht_latency_ms,
            mesh=None if raft is None else raft.mesh,
            raft_state="unknown" if raft is None else raft.role,
            leader=leader if member is None else member.agent_id,
            term=0 if raft is None else raft.term,
            active=active,
            assignment=assignment,
            max_tasks=context.assignments.current.max_tasks,
            warnings=_warnings(context, siblings["election"]),
            crashes={name: one.count for name, one in crashes.items()},
            repeating=tuple(sorted(repeating)),
            unresponsive={name: one.unresponsive for name, one in crashes.items() if one.unresponsive},
        )
        self.verdict = judge(self.findings)
        self.checked_at = now()
        self._looked = time.monotonic()
        self.last_heartbeat = siblings["election"].more.get("last_heartbeat") or self.last_heartbeat
        for check in self.verdict.checks:
            metrics.HEALTH_CHECK.labels(check.name).set(check.ok)

    async def _ask_parent(self) -> Answer | None:
        """What the parent says of the assignment, if there is one to be loaded."""
        if not self.context.settings.assign_url:
            return None
        try:
            head = (await self.context.hub.call_service(PARENT, "health", timeout=DEADLINE_S)).head
        except HubError as error:
            return Answer(False, f"the parent does not answer: {error.message}")
        return Answer(bool(head.get("ok")), str(head.get("detail") or ""))

    async def _ask(self, name: str) -> Answer:
        try:
            head = (await self.context.hub.call_service(name, "health", timeout=DEADLINE_S)).head
        except HubError as error:
            away = time.monotonic() - self._seen[name]
            return Answer(False, f"{name} does not answer: {error.message}", away)
        self._seen[name] = time.monotonic()
        return Answer(bool(head.get("ok")), str(head.get("detail") or ""), 0.0, head)

    def _ask_dht(self) -> None:
        if not self.context.settings.dht_enabled or time.monotonic() < self._dht_next:
            return
        if self._dht_task is None or self._dht_task.done():
            self._dht_next = time.monotonic() + DHT_PERIOD_S
            self._dht_task = asyncio.create_task(self._time_dht())

    async def _time_dht(self) -> None:
        started = time.monotonic()
        try:
            await self.context.hub.dht_get("agent", self.context.settings.peer_id, timeout=DHT_DEADLINE_S)
        except HubNotFound:
            pass  # an answer too: everybody near was asked
        except HubError:
            self._dht_ok, self._dht_latency_ms = False, None
            self._dht_next = time.monotonic() + PERIOD_S
            return
        self._dht_ok = True
        self._dht_latency_ms = round((time.monotonic() - started) * 1000, 3)

    async def _announce(self) -> None:
        """`health_status`: at each change, and every 30 s."""
        if self.verdict is None or self.findings is None:
            return
        data = {
            "agent_id": self.context.settings.agent_id,
            "status": self.verdict.status,
            "ready": self.verdict.ready,
            "license": self.findings.license.state,
            "active": self.findings.active,
            "max_tasks": self.findings.max_tasks,
            "version": self.context.settings.version,
        }
        if data == self._announced and time.monotonic() < self._announce_next:
            return
        with contextlib.suppress(HubError):
            await self.context.hub.publish("chorus/health", "health_status", data)
            self._announced, self._announce_next = data, time.monotonic() + ANNOUNCE_PERIOD_S


async def _within(work: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await work
    except (HubError, TimeoutError):
        return None


def _read_crashes(context: Context) -> dict[str, Crashes]:
    try:
        return load(context.settings.paths.crashes_json)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def now() -> str:
    """The present as RFC 3339."""
    return rfc3339(_now_ms())


def _said(head: dict[str, Any]) -> Answer:
    return Answer(bool(head["ok"]), str(head["detail"]), more=head)


def _warnings(context: Context, election: Answer) -> tuple[str, ...]:
    """What does not make the agent unhealthy, and is to be seen by people all the same."""
    settings = context.settings
    return (
        *filter(None, [settings.departed, settings.new_identity, exposure(settings)]),
        *election.more.get("warnings", ()),
    )

"""What the leader's coordinator does with applied entries: awards, leases, expiry.

Its offers are `offers`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from chorus.config import MeshSettings
from chorus.coordinator.barrier import Barrier
from chorus.coordinator.board import Board
from chorus.coordinator.exclusions import Exclusions
from chorus.coordinator.follower import Applied, Follower
from chorus.coordinator.leases import Leases
from chorus.coordinator.matching import LOST, Candidate, Model, plan
from chorus.coordinator.offers import Offers
from chorus.coordinator.presence import Presence
from chorus.coordinator.proposals import Proposals, Settled
from chorus.coordinator.table_version import next_version
from chorus.hub import Hub, HubError, HubNotLeader, HubRefused, RaftStatus, guard
from chorus.process import Process, metrics
from chorus.table.entries import WAITING_MAX
from chorus.table.reader import TableReader
from chorus.table.records import Member, Mesh, Task
from chorus.wire.languages import canonical

# How long an entry of the leader's own may take before it is looked at anew.
ENTRY_TIMEOUT_S = 5.0
# Presence, expiry and reasons need no more haste than this; awards never wait for it.
TICK_S = 1.0
# Weight of the newest attempt in a member's share of attempts that it did not lose.
SUCCESS_STEP = 0.1
# Tasks ended at once because of what they depend on; the next follow as these are applied.
DEPENDENTS_AT_ONCE = 64


def boot_clock() -> float:
    """Seconds since the machine booted, its sleep included: a lease does not stop while a laptop sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leading:
    """The leader's duties. Idle while another agent leads."""

    def __init__(
        self,
        process: Process,
        hub: Hub,
        follower: Follower,
        proposals: Proposals,
        *,
        clock: Callable[[], float] = boot_clock,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.active = False
        self.board = Board(follower.store)
        self.exclusions = Exclusions()
        self._process, self._hub, self._follower, self._proposals = process, hub, follower, proposals
        self._clock, self._wall_ms = clock, wall_ms
        self._store = follower.store
        self.proofs = Barrier(hub.raft_read_index)
        # Made anew with the mesh's settings whenever this agent begins to lead.
        self.leases = Leases(MeshSettings().lease_s)
        self._presence = Presence(MeshSettings().election_timeout_s)
        self._offers = Offers(self, hub, process.log)
        self._success: dict[str, float] = {}
        self._latency: dict[str, float] = {}
        self._connected: set[str] = set()
        self._reasons: dict[str, str] = {}
        # Who keeps the table at an older version, and whom that was last said of.
        self.held_back_by: tuple[str, ...] = ()
        self._said_of: tuple[str, ...] = ()
        self._round_due = False
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[tuple[str, ...]] = set()
        follower.listen(self._on_applied)

    async def run(self) -> None:
        """Follows who leads and does what is due, until cancelled."""
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                try:
                    await self.tick()
                except (HubError, sqlite3.OperationalError) as error:
                    self._process.log.warning("the leader's round failed; trying again", error=str(error))
                except Exception as error:
                    # What members have in the table is theirs; one odd record must not end every leader.
                    guard.failed("record", error)
                try:
                    async with asyncio.timeout(TICK_S if self.active else None):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            watch.cancel()
            for task in self._tasks:
                task.cancel()

    async def _watch(self) -> None:
        def look(event: dict[str, Any]) -> None:
            if event.get("kind") in ("leader", "role", "step_down", "peer_up", "peer_down"):
                self._wake.set()

        await guard.each(self._hub.events(), look, "event")

    async def tick(self) -> None:
        """All that depends on time or on the network's state."""
        status = await self._hub.raft_status()
        self._check_leadership(status)
        if not self.active:
            return
        await self._check_presence(status)
        self._raise_version()
        now = self._clock()
        for task_id, attempt in self.leases.due(now):
            silent = f"nothing heard for {self.leases.lease_s:g} s: the lease is over"
            self.reoffer(task_id, attempt, silent)
        for task_id, until in list(self.board.until.items()):
            if self._wall_ms() >= until:
                self._spawn_once(("expire", task_id), self._say("expire", {"task_id": task_id}))
        self._end_dependents()
        self._round(explain=True)
        self._say_reasons()

    def _raise_version(self) -> None:
        mesh = self._store.get(Mesh, "mesh")
        raised = next_version(mesh, self._store.records(Member)) if mesh is not None else None
        before, self.held_back_by = self.held_back_by, raised.held_back_by if raised is not None else ()
        if raised is None:
            return
        if raised.due:
            body = {"version": raised.version}
            self._spawn_once(("version", str(raised.version)), self._say("table_version", body))
        elif before == self.held_back_by != self._said_of:
            # Not of those that have only just joined: they have said nothing yet.
            self._said_of = self.held_back_by
            self._process.log.info(
                "the table keeps its version: not all members know the next",
                version=raised.version,
                held_back_by=", ".join(self.held_back_by),
            )

    async def renew(self, task_id: str, attempt: int, mesh: str, peer: str) -> None:
        """An executor is alive. Acknowledged only after a proof of leadership that began later."""
        if not self.active:
            raise HubNotLeader("this agent does not lead the mesh")
        if mesh and mesh != self._follower.mesh().mesh:
            raise HubRefused("superseded: that attempt is of another mesh")
        heard = self._clock()
        # Refused only by what is applied up to a proof of leadership: a table that lags behind its log, as
        # after a restart, must not end an attempt that it has not seen yet.
        await self._follower.reached(await self.proofs.wait())
        if not self.active:
            raise HubNotLeader("this agent no longer leads the mesh")
        self._check_attempt(task_id, attempt, peer)
        self.leases.renew((task_id, attempt), heard)

    def _check_attempt(self, task_id: str, attempt: int, peer: str) -> None:
        working = self.board.working.get(task_id)
        if working is None or working.attempt != attempt:
            raise HubRefused("superseded: that attempt is not under way")
        if working.peer != peer:
            raise HubRefused("only the attempt's executor renews it")

    # What the table says

    def _on_applied(self, batch: list[Applied]) -> None:
        for applied in batch:
            if applied.outcome.leader:
                self._wake.set()
                mesh = self._store.get(Mesh, "mesh")
                if self.active and mesh is not None and mesh.leader != self._hub.peer_id:
                    self._stop()
            if self.active and applied.outcome.accepted and not applied.outcome.repeated:
                self._note(applied)
            if self.active and applied.outcome.members:
                self._wake.set()
                if applied.entry.type == "removal" and not applied.outcome.repeated:
                    self._spawn(self._name_lost(str(applied.entry.body["peer"]), applied.entry.stamp_ms))
        if self.active:
            self._end_dependents()
            self.round_soon()

    def _note(self, applied: Applied) -> None:
        entry = applied.entry
        for task_id in applied.outcome.tasks:
            self.board.refresh(task_id)
            if task_id not in self.board.working:
                self._offers.stop(task_id)
        if entry.type == "removal":
            self._success.pop(entry.body["peer"], None)
        if entry.type not in (
            "award",
            "claim",
            "started",
            "result",
            "goal_result",
            "decline",
            "release",
            "give_back",
            "reoffer",
            "cancel",
        ):
            return
        task_id = entry.body["task_id"]
        working = self.board.working.get(task_id)
        now = self._clock()
        if entry.type in ("award", "claim"):
            if working is not None:
                self.leases.renew((task_id, working.attempt), now)
        elif working is None:
            task = self._store.get(Task, task_id)
            self.leases.end((task_id, task.attempt if task is not None else 0))
        if entry.type == "decline":
            self.exclusions.add(task_id, entry.author, str(entry.body.get("reason") or "declined"), now)
        elif entry.type == "give_back":
            self.exclusions.add(task_id, entry.author, str(entry.body.get("reason") or "gave it back"), now)
        elif entry.type in ("result", "goal_result", "cancel"):
            self.exclusions.forget(task_id)
        if entry.type in ("result", "goal_result"):
            self._succeeded(entry.author, True)
        elif entry.type == "release":
            self.exclusions.add(task_id, entry.author, "gave it back", now)
            self._succeeded(entry.author, False)
        elif entry.type == "claim":
            task = self._store.get(Task, task_id)
            if task is not None and task.claimed_at is not None:
                metrics.TASK_WAIT.observe((task.claimed_at - task.created_at) / 1000)

    def _succeeded(self, peer: str, well: bool) -> None:
        before = self._success.get(peer, 1.0)
        self._success[peer] = before + SUCCESS_STEP * ((1.0 if well else 0.0) - before)

    # Who leads

    def _check_leadership(self, status: RaftStatus) -> None:
        mesh = self._store.get(Mesh, "mesh")
        # The leader entry of this very term: one of an earlier life of this agent does not do.
        leads = (
            status.role == "leader"
            and mesh is not None
            and mesh.leader == self._hub.peer_id
            and mesh.term == status.term
        )
        # What was committed before this agent's coordinator started has to be in the table first.
        if leads and not self.active and self._store.applied < status.commit:
            self._catch_up(status.commit)
            return
        if leads and not self.active:
            self._start()
        elif not leads and self.active:
            self._stop()

    def _catch_up(self, index: int) -> None:
        async def wake() -> None:
            await self._follower.reached(index)
            self._wake.set()

        self._spawn_once(("catch up",), wake())

    def _start(self) -> None:
        self.active = True
        self.board.rebuild()
        self.exclusions.clear()
        settings = MeshSettings.of_entry(self._follower.mesh().settings)
        self.leases = Leases(settings.lease_s)
        self._presence = Presence(settings.election_timeout_s)
        self._connected = {self._hub.peer_id}
        self.leases.reset(
            ((working.task_id, working.attempt) for working in self.board.working.values()), self._clock()
        )
        self._process.log.info("leading: awarding tasks", running=len(self.board.working))
        for working in self.board.working.values():
            if working.state == "awarded":
                self._offers.start(working.task_id, working.attempt, working.peer, self._store.applied)

    def _stop(self) -> None:
        self.active = False
        self._offers.stop_all()
        self.leases.reset((), 0)
        self._reasons.clear()
        metrics.TASKS_INPUT_LOST.set(0)
        self.held_back_by = self._said_of = ()
        self._process.log.info("no longer leading")

    async def _check_presence(self, status: RaftStatus) -> None:
        state = await self._hub.net_state()
        self._latency = {str(peer["peer"]): float(peer.get("rtt_ms") or 0.0) for peer in state["peers"]}
        self._connected = {self._hub.peer_id, *self._latency}
        listed = {member.peer: member.present for member in self._store.records(Member)}
        # A connection alone is no sign of life: a member also answers in the mesh's log.
        heard = {member.peer for member in status.members if member.recent}
        answering = {self._hub.peer_id, *(self._connected & heard)}
        for peer, present, reason in self._presence.changes(listed, answering, self._clock()):
            body = {"peer": peer, "present": present, "reason": reason}
            self._spawn_once(("presence", peer, str(present)), self._say("presence", body))

    # Awards

    def round_soon(self) -> None:
        """One round for all that happens in this turn of the loop."""
        if not self._round_due and self.board.any_waiting:
            self._round_due = True
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self, explain: bool = False) -> None:
        self._round_due = False
        if not self.active or not self.board.any_waiting:
            return
        now = self._clock()
        made = plan(
            self.board.waiting(),
            self.candidates(),
            lambda task_id, peer: self.exclusions.why(task_id, peer, now),
            explain=explain,
        )
        for task_id, peer in made.awards:
            self.board.award_begins(task_id, peer)
            self._spawn(self._award(task_id, peer))
        if explain:
            self._reasons = made.reasons

    def candidates(self) -> list[Candidate]:
        """The members as they are now."""
        return [
            Candidate(
                peer=member.peer,
                agent_id=member.agent_id or member.peer,
                role=member.role,
                expertise=frozenset(member.expertise),
                specialization=member.specialization,
                max_tasks=member.max_tasks,
                active=self.board.load[member.peer],
                languages=frozenset(map(canonical, member.languages)),
                # The table says who is away for good; who is not connected just now cannot be asked either.
                present=member.present and member.peer in self._connected,
                accepting=member.accepting,
                reason=member.reason,
                success=self._success.get(member.peer, 1.0),
                latency_ms=self._latency.get(member.peer, 0.0),
                models=tuple(Model(model["model"], model["local"]) for model in member.models),
                model_reason=member.model_reason,
            )
            for member in self._store.records(Member)
        ]

    async def _award(self, task_id: str, peer: str) -> None:
        task = self._store.get(Task, task_id)
        settled: Settled | None = None
        attempt = 0
        try:
            if task is not None:
                attempt = task.attempt + 1
                body = {"task_id": task_id, "attempt": attempt, "agent": peer}
                settled = await self._say("award", body)
        finally:
            self.board.award_ends(task_id)
        if settled is not None and settled.accepted and self.active:
            self._offers.start(task_id, attempt, peer, settled.index)
        else:
            self.round_soon()

    def reoffer(self, task_id: str, attempt: int, reason: str) -> None:
        """Takes an attempt back; proposed once, however often it is found to be due."""
        working = self.board.working.get(task_id)
        if working is None or working.attempt != attempt:
            self.leases.end((task_id, attempt))
            return
        key = ("reoffer", task_id, str(attempt))
        if key in self._under_way:
            return
        self.exclusions.add(task_id, working.peer, reason, self._clock())
        if working.state != "awarded":
            self._succeeded(working.peer, False)
        body = {"task_id": task_id, "attempt": attempt, "reason": reason}
        self._spawn_once(key, self._say("reoffer", body))

    def _end_dependents(self) -> None:
        for task_id in list(islice(self.board.failed_dependency, DEPENDENTS_AT_ONCE)):
            body = {"task_id": task_id}
            self._spawn_once(("dependency_failed", task_id), self._say("dependency_failed", body))

    async def _name_lost(self, peer: str, now_ms: int) -> None:
        """What is lost with a member that was removed; of tasks that wait their reason says it."""
        since = now_ms - int(self._process.settings.retention_s * 1000)

        def count() -> int:
            reader = TableReader(self._store.path)
            try:
                return reader.held.lost_with(peer, since)
            finally:
                reader.close()

        if lost := await asyncio.to_thread(count):
            metrics.OUTPUTS_LOST.inc(lost)
            self._process.log.warning(
                "the output of ended tasks is lost: a removed member alone had it", peer=peer, tasks=lost
            )

    def _say_reasons(self) -> None:
        fresh: list[dict[str, str]] = []
        lost = 0
        for task_id, reason in self._reasons.items():
            if task_id in self.board.failed_dependency:
                continue
            task = self._store.get(Task, task_id)
            if task is None or task.finished_at is not None or task.agent is not None:
                continue
            lost += reason == LOST
            if task.reason == reason or len(fresh) == WAITING_MAX:
                continue
            fresh.append({"task_id": task_id, "reason": reason})
            if reason == LOST:
                self._process.log.warning("the source or input of a task is lost", task_id=task_id)
        metrics.TASKS_INPUT_LOST.set(lost)
        if fresh:
            self._spawn_once(("waiting",), self._say("waiting", {"tasks": fresh}))

    async def _say(self, type: str, body: dict[str, Any]) -> Settled | None:
        try:
            return await self._proposals.propose(type, body, ENTRY_TIMEOUT_S)
        except HubError as error:
            self._process.log.info("an entry of the leader was not committed", type=type, error=str(error))
            return None

    def _spawn_once(self, key: tuple[str, ...], work: Coroutine[Any, Any, Any]) -> None:
        if key in self._under_way:
            work.close()
            return
        self._under_way.add(key)

        async def once() -> None:
            try:
                await work
            finally:
                self._under_way.discard(key)

        self._spawn(once())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

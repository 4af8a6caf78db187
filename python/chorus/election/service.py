"""The election process: wires search, admission, duties and news; answers for the mesh's leadership."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chorus.config import MeshSettings
from chorus.election.admission import Admission
from chorus.election.announce import News, Trigger
from chorus.election.departures import Departures
from chorus.election.duties import Duties
from chorus.election.mesh_service import MeshService
from chorus.election.neighbours import Neighbours
from chorus.election.peers import PEER_SERVICE, Peers
from chorus.election.recovering import Recovering
from chorus.election.removing import Removing
from chorus.election.score import Figures, Score, score
from chorus.election.search import Search
from chorus.election.seats import Seats
from chorus.hub import Handler, Hub, HubError, HubInvalid, RaftStatus, Reply, Request, guard
from chorus.process import Process, metrics
from chorus.table.reader import TableReader
from chorus.telemetry.operations import Operation
from chorus.wire.times import rfc3339

SERVICE = "election"
# The leader looks at its members this often, unless the heartbeat is shorter.
BEAT_MAX_S = 1.0
# And this often while one of the first votes is to be given: a young mesh lives by one disk until then.
BEAT_YOUNG_S = 0.1
DRAIN_S = 10.0


class Election:
    """All parts of the process. `run` ends when it is cancelled."""

    def __init__(self, process: Process, hub: Hub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._process, self._hub = process, hub
        self._reader = TableReader(process.settings.paths.table_db)
        peers = Peers(process, hub)
        seats = Seats(process.settings, hub)
        self.search = Search(process, hub, peers, seats)
        changing = asyncio.Lock()
        self.neighbours = Neighbours(process, hub, peers, clock=clock)
        self.departures = Departures(
            process,
            hub,
            self.neighbours,
            self._reader,
            changing,
            lambda: self._set_trigger("split_brain"),
            clock=clock,
        )
        self.admission = Admission(
            process, hub, self.search, self._reader, changing, seats, closed=self.departures.closed
        )
        self.recovering = Recovering(
            process, hub, peers, self.neighbours, self.departures, self._reader, changing, clock=clock
        )
        self.news = News(process, hub)
        self.duties = Duties(process, hub, self.admission, self.news, self._reader, clock=clock)
        self.mesh_service = MeshService(hub, self.search, self.admission, self.duties, self._reader)
        self._removing = Removing(hub, self.duties, self._reader)
        self._own = MeshSettings.of_founder(process.settings)
        self._started = time.monotonic()
        self._score = Score(0.0)
        self._trigger: Trigger = ""
        self._leader: str | None = None
        self._leader_since_ms: int | None = None
        # When this agent's last heartbeat went out; None before the first one.
        self._heartbeat_ms: int | None = None
        self._status = RaftStatus(None, 0, 0, "none", None, 0, 0)
        self._wake = asyncio.Event()
        process.operations.begin("election", "", "searching")
        self._methods: dict[str, Handler] = {
            "health": self._health,
            "status": self._say_status,
            "transfer": self._transfer,
            "remove": self._removing.remove,
            "rejoin": self._rejoin,
            "recovery": self._recovery,
            "recover": self._recover,
            "drain": self._drain,
        }

    async def run(self) -> None:
        """Serves and works until cancelled."""
        await self._hub.offer(SERVICE, self._serve)
        await self._hub.offer(PEER_SERVICE, self.mesh_service.serve, peers=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._search())
            group.create_task(guard.lasting(self.departures.run, "answer"))
            group.create_task(guard.lasting(self._watch, "event"))
            group.create_task(guard.lasting(self.news.listen, "gossip"))
            group.create_task(guard.lasting(self._beats, "record"))
            group.create_task(guard.lasting(self._heartbeats, "record"))

    async def _search(self) -> None:
        while True:
            try:
                await self.search.run()
            except HubError as error:
                self._process.log.warning("the search for a mesh goes on", error=str(error))
                await asyncio.sleep(BEAT_MAX_S)
                continue
            except Exception as error:
                # What a peer answers to a question is its own business.
                guard.failed("answer", error)
                await asyncio.sleep(BEAT_MAX_S)
                continue
            break
        if self.search.founded:
            self._set_trigger("discovery_failure")
        self._choice("leaderless").phase("leaderless")
        self._wake.set()

    async def _beats(self) -> None:
        while True:
            try:
                await self.beat()
            except HubError as error:
                self._process.log.info("a look at the mesh failed", error=str(error))
            pause = min(BEAT_MAX_S, self._settings.heartbeat_s)
            if self._status.role != "leader":
                wait = 4 * pause  # nothing to do until something happens
            else:
                wait = min(pause, BEAT_YOUNG_S) if self.duties.unsettled else pause
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def beat(self) -> None:
        """One look at the machine."""
        status = await self._hub.raft_status()
        self._status = status
        if status.leader != self._leader:
            self._leader = status.leader
            self.departures.look_again()
            self._follow_choice(status)
            self._leader_since_ms = time.time_ns() // 1_000_000 if status.leader else None
        metrics.ELECTION_TERM.set(status.term)
        metrics.ELECTION_LEADER.set(1 if status.role == "leader" else 0)
        self.recovering.look(status)
        await self.duties.beat(status, self._score.total)

    def _follow_choice(self, status: RaftStatus) -> None:
        """BACKBEAT follows an election from the loss of a leader to the next one."""
        if status.leader is None:
            self._choice("leaderless")
        else:
            own = status.leader == self._hub.peer_id
            self._choice("hand_over").end("leading" if own else "following")

    def _choice(self, phase: str) -> Operation:
        """The election under way; without one another begins, in this phase."""
        operations, term = self._process.operations, self._status.term
        return operations.of("election") or operations.begin("election", "", phase, term=term)

    async def _heartbeats(self) -> None:
        while True:
            try:
                await self._update_score()
            except (HubError, OSError) as error:
                self._process.log.info("the score was not updated", error=str(error))
            status = self._status
            said = await self.news.say(
                "heartbeat",
                mesh=status.mesh,
                term=status.term,
                state=status.role,
                leader=status.leader,
                score=self._score.total,
                agent_id=self._process.settings.agent_id,
            )
            if said:
                self._heartbeat_ms = time.time_ns() // 1_000_000
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _update_score(self) -> None:
        state = await self._hub.net_state()
        members = self._status.members
        listed = {member.peer for member in members}
        near = [float(peer.get("rtt_ms") or 0) for peer in state["peers"] if peer["peer"] in listed]
        mine = self._reader.member(self._hub.peer_id)
        assignment = self._process.assignments.current
        self._score = score(
            Figures(
                uptime_s=time.monotonic() - self._started,
                expertise=len(assignment.expertise),
                max_tasks=assignment.max_tasks,
                active=mine.active if mine is not None else 0,
                load_per_core=os.getloadavg()[0] / (os.cpu_count() or 1),
                free_memory=_free_memory(),
                members=len(members),
                connected=len(near),
                rtt_ms=sorted(near)[len(near) // 2] if near else 0.0,
                tasks_done=self._reader.ended_by(self._hub.peer_id),
            )
        )
        if self.duties.draining:
            self._score = Score(0.0)
        await self._hub.raft_set_score(self._score.total)

    async def _watch(self) -> None:
        await guard.each(self._hub.events(), self._on_event, "event")

    async def _on_event(self, event: dict[str, Any]) -> None:
        self._wake.set()
        mesh, term = self._status.mesh, int(event.get("term") or self._status.term)
        leader = event.get("peer") or event.get("leader")
        match event.get("kind"):
            case "candidate":
                self._set_trigger("heartbeat_timeout")
                self._choice("leaderless").phase("standing")
                score_now = self._score.total
                await self.news.say("candidacy", mesh=mesh, term=term, score=score_now, trigger=self._trigger)
            case "voted" | "vote":
                await self.news.say("vote", mesh=mesh, term=term, candidate=str(event.get("for") or ""))
            case "leader" if leader == self._hub.peer_id:
                await self.news.say("leader", mesh=mesh, term=term, trigger=self._trigger)
            case "step_down":
                if event.get("reason") == "quorum_loss":
                    self._set_trigger("quorum_loss")
                await self.news.say("resign", mesh=mesh, term=term, reason=str(event.get("reason") or ""))
            case "peer_up" | "peer_down":
                self.search.look_again()
                self.departures.look_again()

    def _set_trigger(self, trigger: Trigger) -> None:
        self._trigger = trigger
        self._process.log.info("election", trigger=trigger)

    # What others ask

    async def _serve(self, request: Request) -> Reply | dict[str, Any] | None:
        method = self._methods.get(request.method)
        if method is None:
            raise HubInvalid(f"{SERVICE} has no method {request.method!r}")
        return await method(request)

    async def _health(self, request: Request) -> dict[str, Any]:
        status = await self._hub.raft_status()
        if (leaving := self.departures.under_way) is not None:
            ok, detail = False, f"leaving mesh {leaving.mesh}: {leaving.why}"
        elif status.mesh is None:
            ok, detail = False, self.search.why
        elif status.leader is None:
            ok, detail = False, self.recovering.problem(status) or f"mesh {status.mesh} has no leader now"
        else:
            ok, detail = True, f"{status.role} in mesh {status.mesh}"
        other = self._differing(status)
        if other:
            detail = f"{detail}; the mesh's settings are used, not this agent's own: {', '.join(other)}"
        others = [other.mesh for other in self.neighbours.others]
        last = None if self._heartbeat_ms is None else rfc3339(self._heartbeat_ms)
        said = {"ok": ok, "detail": detail, "other_meshes": others, "warnings": self.departures.warnings()}
        return {**said, "last_heartbeat": last, **await self._say_status(request)}

    async def _say_status(self, request: Request) -> dict[str, Any]:
        """`status`: what `GET /api/v1/election` answers."""
        status = await self._hub.raft_status()
        mesh = self._reader.mesh()
        present = {member.peer: member for member in self._reader.members()}
        return {
            "mesh": status.mesh,
            "term": status.term,
            "state": status.role,
            "leader": self._name(status.leader),
            "since": rfc3339(self._leader_since_ms) if self._leader_since_ms is not None else None,
            "members": [
                {
                    "agent_id": self._name(member.peer),
                    "peer": member.peer,
                    "voter": member.voter,
                    "present": present[member.peer].present if member.peer in present else True,
                }
                for member in status.members
            ],
            "version": mesh.version if mesh is not None else 1,
            "score": self._score.total,
            "trigger": self._trigger or None,
        }

    async def _transfer(self, request: Request) -> dict[str, Any]:
        """`transfer` {to?}: by hand; `to` is a peer id or an agent id."""
        to = request.head.get("to")
        if to is not None:
            member = self._reader.member_by_agent(str(to))
            to = member.peer if member is not None else str(to)
        self._set_trigger("manual")
        return {"to": await self.duties.transfer(to, "asked for by hand")}

    async def _rejoin(self, request: Request) -> dict[str, Any]:
        """`rejoin`: by hand; this agent leaves its mesh for another one that it meets."""
        return asdict(await self.departures.rejoin())

    async def _recovery(self, request: Request) -> dict[str, Any]:
        """`recovery`: what is left of the mesh when a majority of its voters is lost."""
        return await self.recovering.plan()

    async def _recover(self, request: Request) -> dict[str, Any]:
        """`recover` {mesh, force?}: this agent founds a mesh that goes on from the one named."""
        mesh, force = request.head.get("mesh"), request.head.get("force", False)
        if not isinstance(mesh, str) or not isinstance(force, bool):
            raise HubInvalid("mesh: give the id that the plan names; force: true or false")
        return asdict(await self.recovering.recover(mesh, force=force))

    async def _drain(self, request: Request) -> dict[str, Any]:
        """`drain` {deadline_s?}: hands leadership over before the stop."""
        deadline = min(float(request.head.get("deadline_s") or DRAIN_S), DRAIN_S)
        return {"left": await self.duties.leave(deadline)}

    def _name(self, peer: str | None) -> str | None:
        return None if peer is None else self._reader.name_of(peer)

    @property
    def _settings(self) -> MeshSettings:
        """The mesh's settings; before there is one, those that this agent would found it with."""
        return self._status.settings or self._own

    def _differing(self, status: RaftStatus) -> list[str]:
        if status.settings is None:
            return []
        theirs = status.settings.to_entry()
        return [name for name, value in self._own.to_entry().items() if theirs[name] != value]


def _free_memory() -> float:
    """The share of the machine's memory that is free to use."""
    figures = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        figures[name] = int(rest.split()[0])
    return figures.get("MemAvailable", 0) / max(1, figures.get("MemTotal", 1))


async def main(process: Process) -> None:
    """The process's body."""
    election = Election(process, process.hub)
    work = asyncio.create_task(election.run())
    stop = asyncio.create_task(process.stopping.wait())
    await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if work.done():
        # Only an error ends it.
        await work
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)

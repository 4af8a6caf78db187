"""What must be well for the agent to be healthy and ready: pure rules over what the observer found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chorus.license.status import LicenceStatus
from chorus.wire.counts import counted
from chorus.wire.health import DECIDE_NOTHING

# The processes every agent consists of, but for api, which is the one that answers.
SIBLINGS: Final = ("node", "election", "coordinator", "executor")
# A killed process is back within seconds; one that is away for longer is not coming back by itself.
PROCESS_ABSENCE_MAX_S: Final = 60.0


def siblings_of(provider: str) -> tuple[str, ...]:
    """The processes of an agent but for api: `mind` is one where there is a provider of models."""
    return SIBLINGS if provider == "none" else (*SIBLINGS, "mind")


@dataclass(frozen=True, slots=True)
class Check:
    """One criterion. A critical one decides health; one for readiness alone decides only that."""

    name: str
    ok: bool
    critical: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sibling said about itself, or why it said nothing; `away_s`: silent for how long."""

    ok: bool
    detail: str
    away_s: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything the rules look at, gathered at one moment."""

    license: LicenceStatus
    license_detail: str
    siblings: Mapping[str, Answer]
    peers: int
    clock_skew: bool
    dht_enabled: bool
    dht_ok: bool
    dht_latency_ms: float | None
    mesh: str | None
    raft_state: str
    leader: str | None
    term: int
    active: int
    max_tasks: int
    crashes: Mapping[str, int] = field(default_factory=dict)
    repeating: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    # How many of the crashes were ended by the parent because they lived and did not answer.
    unresponsive: Mapping[str, int] = field(default_factory=dict)
    # What the client of BACKBEAT says of itself, where it is on.
    backbeat: Answer | None = None
    # Which kind of keys values are sealed with, in the core's words.
    role_keys: str = "unknown"
    # What the parent says of the assignment; None where none is to be loaded.
    assignment: Answer | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome: healthy, ready, alive, and the checks it rests on."""

    status: Literal["healthy", "unhealthy"]
    ready: bool
    alive: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """Why the agent is not ready."""
        failed = [check for check in self.checks if not check.ok and check.name not in DECIDE_NOTHING]
        return [f"{check.name}: {check.detail}" for check in failed]


def judge(found: Findings) -> Verdict:
    """Applies the criteria of chorus-agent.md."""
    node = found.siblings["node"]
    election = found.siblings["election"]
    coordinator = found.siblings["coordinator"]
    docker = docker_answer(found.siblings["executor"])
    available = found.max_tasks - found.active
    peers = f"{found.peers} peer{'' if found.peers == 1 else 's'} connected"
    if not found.peers:
        peers = "no peer yet: start a second agent, or set CHORUS_BOOTSTRAP_PEERS"
    checks = [
        Check("license", found.license.holds, True, found.license_detail),
        Check("p2p", node.ok, True, node.detail),
        Check("peers", found.peers > 0, True, peers),
        Check("election", election.ok, True, election.detail),
        Check("coordinator", coordinator.ok, True, coordinator.detail),
        Check("api", True, True, "answering"),
        Check("leader", found.leader is not None, False, _leader(found)),
        Check("executor", found.siblings["executor"].ok, False, found.siblings["executor"].detail),
        Check("docker", docker.ok, False, docker.detail),
        Check("capacity", available > 0, False, f"{found.active} of {found.max_tasks} tasks active"),
    ]
    if (mind := found.siblings.get("mind")) is not None:
        checks.append(Check("ai", mind.ok, False, mind.detail))
    if found.assignment is not None:
        checks.append(Check("assignment", found.assignment.ok, False, found.assignment.detail))
    if found.dht_enabled:
        checks.append(Check("dht", found.dht_ok, False, "answering" if found.dht_ok else "no answer"))
    if found.backbeat is not None:
        checks.append(Check("backbeat", found.backbeat.ok, False, found.backbeat.detail))
    checks.append(
        Check(
            "clock", not found.clock_skew, False, "agrees with the peers" if not found.clock_skew else _CLOCK
        )
    )
    checks.append(Check("processes", not found.repeating, False, _processes(found)))
    healthy = all(check.ok for check in checks if check.critical)
    ready = all(check.ok for check in checks if check.name not in DECIDE_NOTHING)
    alive = all(answer.away_s < PROCESS_ABSENCE_MAX_S for answer in found.siblings.values())
    return Verdict("healthy" if healthy else "unhealthy", ready, alive, tuple(checks))


_CLOCK: Final = (
    "more than half of the peers' clocks disagree with this machine's: check its time synchronisation"
)


def docker_answer(executor: Answer) -> Answer:
    """What the executor said about the Docker daemon."""
    said = executor.more.get("docker")
    if isinstance(said, Mapping):
        return Answer(
            bool(said.get("ok")),
            str(said.get("detail") or ("reachable" if said.get("ok") else "unknown")),
            more=said,
        )
    if not executor.ok:
        return Answer(False, f"not known: {executor.detail}")
    return Answer(True, "reachable")


def _processes(found: Findings) -> str:
    said = f"dying again and again: {', '.join(found.repeating)}" if found.repeating else "steady"
    if found.unresponsive:
        times = sorted(found.unresponsive.items())
        hung = ", ".join(f"{name} {counted(count, 'time')}" for name, count in times)
        said += f"; ended because it did not answer: {hung}"
    return said


def _leader(found: Findings) -> str:
    if found.mesh is None:
        return "this agent is in no mesh yet"
    if found.leader is None:
        return "the mesh has no leader now"
    return f"{found.leader}, term {found.term}"

"""`chorusctl up` and `down`: a mesh of agents on this machine, with data folders that last."""

from __future__ import annotations

import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import httpx

from chorus.config import Paths
from chorus.config.read import read_values
from chorus.ctl import contexts
from chorus.ctl.agents import (
    POLL_S,
    Started,
    alive,
    peer_in,
    signal_all,
    start,
    tail,
    wait_gone,
    without_peer,
)
from chorus.ctl.contexts import AgentEntry, MeshContext
from chorus.ctl.problems import FAILED, CtlError
from chorus.ctl.terminal import note, note_lines, say, say_json
from chorus.process.membership import UnreadableVoteFile, goes_on
from chorus.wire.counts import counted
from chorus.wire.health import DECIDE_NOTHING

# From the first start to a complete mesh: discovery, an election, and 10 s of steadiness before later votes.
READY_TIMEOUT_S: Final = 180.0
PROBE_TIMEOUT_S: Final = 3.0
# Checks of health that no start waits for: an agent full of work has started.
_NOT_WAITED_FOR: Final = DECIDE_NOTHING | {"capacity"}
# In-flight work is finished first; the agents' own limit is 300 s unless set.
STOP_TIMEOUT_S: Final = 330.0
HURRY_TIMEOUT_S: Final = 60.0
DEFAULT_VOTERS: Final = 5
LICENCE_RANDOM_BYTES: Final = 16
# Longer than any agent looks for the mesh that it is to join.
NEVER_FOUNDS: Final = "365d"


class Stuck(CtlError):
    """The agents run, and only a person can make a mesh of them: they go on running for that."""


def up(arguments: Namespace) -> int:
    """Brings a mesh up and, unless detached, keeps it until Ctrl-C."""
    name = contexts.check_name(arguments.context or os.environ.get("CHORUS_CONTEXT") or contexts.DEFAULT_NAME)
    context, fresh = _prepare(name)
    running = [agent for agent in context.agents if alive(agent)]
    if running:
        raise CtlError(
            f"context {name} is up already ({counted(len(running), 'agent')}); "
            f"chorusctl down --context {name} ends it"
        )
    contexts.save(context)
    if fresh:
        contexts.make_secret(context)
    _say(_provider_notice())
    # A terminal's Ctrl-C and a service manager's SIGTERM mean the same here.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started: list[Started] = []
    try:
        context = _bring_up(context, arguments, started, alone=fresh)
    except Stuck as stuck:
        if arguments.detach:
            end = f"chorusctl down --context {name}"
            raise CtlError(f"{stuck}. The agents go on running; {end} ends them") from None
        note_lines(f"chorusctl: {stuck}. The agents go on running; Ctrl-C ends them")
        return _until_interrupted(contexts.load(name) or context, started) or FAILED
    except BaseException as error:
        _abandon(started)
        if isinstance(error, KeyboardInterrupt):
            raise CtlError("interrupted; the agents were stopped", 130) from None
        raise
    if arguments.json:
        secret = _secret_setting(context).get("CHORUS_CLUSTER_SECRET_FILE")
        said = {
            "agents": [asdict(agent) for agent in context.agents],
            "cluster_secret_file": secret or os.environ.get("CHORUS_CLUSTER_SECRET_FILE") or None,
        }
        say_json(said, flush=True)
    else:
        for agent in context.agents:
            say(f"{agent.agent_id}  {agent.api}  {agent.multiaddr}", flush=True)
    if arguments.detach:
        return 0
    _say("the mesh is up; Ctrl-C ends it")
    return _until_interrupted(context, started)


def down(arguments: Namespace) -> int:
    """Stops a mesh; with --purge its data goes too."""
    name = arguments.context or os.environ.get("CHORUS_CONTEXT") or contexts.last_name()
    context = contexts.load(name) if name else None
    if context is None:
        raise CtlError(f"there is no context {name}" if name else "no mesh was brought up with chorusctl up")
    _stop(list(context.agents))
    if arguments.purge:
        contexts.remove(context)
    else:
        contexts.stopped(context)
    return 0


def _prepare(name: str) -> tuple[MeshContext, bool]:
    """The context, and whether it gets a licence and a secret now: then nobody has a mesh of it yet."""
    context = contexts.load(name)
    wanted = _licence_in_environment()
    if context is not None:
        return replace(context, license_id=wanted) if wanted else context, False
    # 128 bits, so that the id tells nothing even to an agent that is given no secret beside it.
    context = MeshContext(name, wanted or f"dev-{name}-{os.urandom(LICENCE_RANDOM_BYTES).hex()}")
    return context, not (wanted or _secret_in_environment() or context.folder.exists())


def _licence_in_environment() -> str:
    problems: list[str] = []
    wanted = str(read_values(os.environ, problems)["CHORUS_LICENSE_ID"].value)
    for problem in problems:
        if problem.startswith("CHORUS_LICENSE_ID"):
            raise CtlError(problem)
    return wanted


def _secret_in_environment() -> bool:
    return any(os.environ.get(name) for name in ("CHORUS_CLUSTER_SECRET", "CHORUS_CLUSTER_SECRET_FILE"))


def _secret_setting(context: MeshContext) -> dict[str, str]:
    """The context's own secret, where it has one and the environment names none."""
    path = None if _secret_in_environment() else context.secret_file
    return {} if path is None else {"CHORUS_CLUSTER_SECRET_FILE": str(path)}


def provider() -> str:
    """The agents' provider: what the environment says, or Ollama where it names its address or model."""
    named = any(os.environ.get(name) for name in ("OLLAMA_ENDPOINT", "OLLAMA_MODEL"))
    return os.environ.get("CHORUS_AI_PROVIDER") or ("ollama" if named else "none")


def _provider_notice() -> str:
    if provider() == "none":
        return "no model is configured: the agents' provider is none, and they take only tasks with commands"
    return ""


def _bring_up(
    context: MeshContext, arguments: Namespace, started: list[Started], *, alone: bool
) -> MeshContext:
    deadline = time.monotonic() + READY_TIMEOUT_S
    known = () if alone else _members_of_a_mesh(context, arguments.agents)
    for number in range(1, arguments.agents + 1):
        name = f"agent-{number}"
        settings = {
            "CHORUS_LICENSE_ID": context.license_id,
            "CHORUS_LICENSE_ID_FILE": "",
            **_secret_setting(context),
            "CHORUS_AGENT_ID": name,
            "CHORUS_DATA_DIR": str(context.folder / name),
            "CHORUS_AI_PROVIDER": provider(),
        }
        if alone and number == 1:
            # There is nobody to look for: it founds the mesh that the others join.
            settings["CHORUS_ELECTION_JOIN_WAIT"] = os.environ.get("CHORUS_ELECTION_JOIN_WAIT", "0s")
        elif known and name not in known:
            # It joins the mesh that the others are in and never founds one beside it, however late they are.
            settings["CHORUS_ELECTION_JOIN_WAIT"] = NEVER_FOUNDS
        if started:
            first = without_peer(started[0].entry().multiaddr)
            inherited = os.environ.get("CHORUS_BOOTSTRAP_PEERS", "")
            settings["CHORUS_BOOTSTRAP_PEERS"] = ",".join(filter(None, (inherited, first)))
        _say(f"starting {name}")
        started.append(start(name, context.folder / name, settings, detached=arguments.detach))
        if number == 1:
            _wait(started, deadline, "listen", lambda: started[0].describe() is not None)
    _wait(started, deadline, "listen", lambda: all(agent.describe() for agent in started))
    context = _with_agents(context, started)
    _say("waiting until every agent is ready and the mesh is complete")
    with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as http:
        missing = _Missing(context, http, started)
        try:
            _wait(started, deadline, "become ready", missing.none)
        except TimeoutError:
            raise CtlError(missing.explain(started)) from None
    for warning in sorted(missing.warnings):
        _say(f"warning: {warning}")
    return _with_agents(context, started)


def _with_agents(context: MeshContext, started: list[Started]) -> MeshContext:
    context = replace(context, agents=tuple(agent.entry() for agent in started))
    contexts.save(context)
    return context


def _members_of_a_mesh(context: MeshContext, agents: int) -> set[str]:
    """The agents whose data says that they are in a mesh and may go on in it."""
    found = set()
    for number in range(1, agents + 1):
        name = f"agent-{number}"
        paths = Paths(context.folder / name, context.folder / name)
        try:
            if goes_on(paths, _peer_of_key):
                found.add(name)
        except UnreadableVoteFile as error:
            raise CtlError(
                f"{name}: vote file {paths.vote_file}: {error}. Make it readable for this user; if it is "
                "lost, move it away, and the agent gets a new identity"
            ) from None
    return found


def _peer_of_key(path: Path) -> str:
    from chorus import core

    try:
        return core.Identity.load_or_create(path).peer_id
    except core.CoreError:
        return ""  # the agent itself says what is wrong with its key


def _wait(started: list[Started], deadline: float, what: str, done: Any) -> None:
    while not done():
        for agent in started:
            agent.check_alive()
        if time.monotonic() > deadline:
            if what == "listen":
                slow = next(agent for agent in started if agent.describe() is None)
                raise CtlError(f"{slow.name} does not {what}; its last words:\n{tail(slow.log)}")
            raise TimeoutError
        time.sleep(POLL_S)


class _Missing:
    """What a complete mesh still lacks."""

    def __init__(self, context: MeshContext, http: httpx.Client, started: list[Started]) -> None:
        self._context = context
        self._started = started
        self._http = http
        self._why: dict[str, str] = {}
        # The meshes that the agents are in, while they are in more than one.
        self._apart = ""
        # What the agents warn of in their health.
        self.warnings: set[str] = set()

    def none(self) -> bool:
        """Whether nothing is missing; raises Stuck when waiting cannot help."""
        self._why = {}
        healths = {agent.agent_id: self._health(agent) for agent in self._context.agents}
        answered = {name: health for name, health in healths.items() if isinstance(health, dict)}
        self._apart = two_meshes(answered)
        led = any((health.get("election") or {}).get("leader") for health in answered.values())
        elections = {} if led and not self._apart else self._elections()
        if self._apart and of_many(elections):
            name = self._context.name
            raise Stuck(
                f"{self._apart}, and meshes of more than one member do not merge. Have each agent of one of "
                f"them leave it for the other: chorusctl members rejoin --context {name} --agent NAME. That "
                "mesh's tasks are left behind in replaced/ in the agents' folders. To begin anew without the "
                f"tasks of both: chorusctl down --purge --context {name}"
            )
        if not led and (why := self._no_majority(elections)):
            raise Stuck(why)
        for agent in self._context.agents:
            health = healths[agent.agent_id]
            if why := health if isinstance(health, str) else self._look(agent, health):
                self._why[agent.agent_id] = why
                return False
        return True

    def _elections(self) -> dict[str, dict[str, Any]]:
        """What the agents say of their meshes; without those that do not answer now."""
        said = {}
        for agent in self._context.agents:
            try:
                said[agent.agent_id] = self._election(agent)
            except (httpx.HTTPError, ValueError, OSError):
                continue  # it has only begun to start, or begins anew in another mesh
        return said

    def _no_majority(self, elections: Mapping[str, Mapping[str, Any]]) -> str:
        """Why the mesh will never have a leader, when every agent has answered and too few votes are here."""
        if len(elections) < len(self._context.agents) or os.environ.get("CHORUS_BOOTSTRAP_PEERS"):
            return ""
        here = {peer_in(agent.entry().multiaddr): agent.name for agent in self._started}
        why = too_few_votes(elections, here)
        return why and (
            f"{why}. If they are lost for good, go on from what is left: chorusctl members recover --context "
            f"{self._context.name}. If not, chorusctl down, put the newest core/raft.redb and identity.key, "
            f"which belong together, back into the agents' folders in {self._context.folder} (replaced "
            "identities' are there in replaced/), and chorusctl up"
        )

    def explain(self, started: list[Started]) -> str:
        """Who is not ready, why, and what its log says last."""
        lines = [f"the mesh is not complete after {READY_TIMEOUT_S:g} s", *filter(None, [self._apart])]
        for agent_id, why in self._why.items():
            log = next(agent.log for agent in started if agent.name == agent_id)
            lines += [f"{agent_id}: {why}; its last words:", tail(log)]
        return "\n".join(lines)

    def _health(self, agent: AgentEntry) -> dict[str, Any] | str:
        """What its health says, or why there is no answer."""
        try:
            health = self._http.get(f"{agent.health}/health").json()
            if not isinstance(health, dict):
                raise ValueError("its health is no JSON object")
        except (httpx.HTTPError, ValueError) as error:
            return f"does not answer yet ({error})"
        self.warnings.update(map(str, health.get("warnings") or ()))
        return health

    def _look(self, agent: AgentEntry, health: dict[str, Any]) -> str:
        """Why this agent is not ready; empty when it is."""
        alone = len(self._context.agents) == 1
        try:
            waived = {"peers"} if alone else set()
            failing = [
                f"{check['name']}: {check['detail']}"
                for check in health["checks"]
                if not check["ok"] and check["name"] not in waived | _NOT_WAITED_FOR
            ]
            if failing or not health["checks"]:
                return "; ".join(failing) or "starting"
            status = self._http.get(f"{agent.api}/api/v1/status", headers=self._bearer(agent)).json()
            listed = {str(member["peer_id"]) for member in self._election(agent)["members"]}
        except (httpx.HTTPError, ValueError, KeyError, OSError) as error:
            return f"does not answer yet ({error})"
        mesh = status["mesh"]
        missing = [other.name for other in self._started if peer_in(other.entry().multiaddr) not in listed]
        if mesh["leader"] is None or missing:
            return f"its mesh has no {', '.join(missing) or 'leader'} yet"
        wanted = _voters(len(self._context.agents))
        if mesh["voters"] < wanted:
            return f"{mesh['voters']} of {wanted} voters are in"
        if mesh["applied"] < mesh["committed"] and mesh["applied"] == 0:
            return "its table is empty"
        return ""

    def _election(self, agent: AgentEntry) -> dict[str, Any]:
        """What `GET /api/v1/election` answers; raises httpx.HTTPError, ValueError or OSError."""
        answer = self._http.get(f"{agent.api}/api/v1/election", headers=self._bearer(agent))
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        return said

    @staticmethod
    def _bearer(agent: AgentEntry) -> dict[str, str]:
        with open(agent.token_file, encoding="ascii") as file:  # noqa: PTH123
            return {"Authorization": f"Bearer {file.read().strip()}"}


def two_meshes(healths: Mapping[str, Mapping[str, Any]]) -> str:
    """Names two meshes that share a cluster secret, if the agents are in two or have met another one."""
    mine: dict[str, list[str]] = {}
    met: set[str] = set()
    for name, health in healths.items():
        election = health.get("election") or {}
        if mesh := election.get("mesh"):
            mine.setdefault(str(mesh), []).append(name)
        met.update(map(str, election.get("other_meshes") or ()))
    where = [f"{mesh} ({', '.join(sorted(names))})" for mesh, names in sorted(mine.items())]
    where += sorted(met - set(mine))
    return f"two meshes with the same cluster secret: {' and '.join(where)}" if len(where) > 1 else ""


def of_many(elections: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the agents are in two meshes that go on, both of more than one member: others join by
    themselves.

    `elections` is what each agent answers to `GET /api/v1/election`.
    """
    going_on = {
        said.get("mesh")
        for said in elections.values()
        if said.get("leader") and len(said.get("members") or ()) > 1
    }
    return len(going_on - {None}) > 1


def too_few_votes(elections: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]) -> str:
    """Says which voters are missing when a mesh without a leader has no majority of them.

    `elections` is what each agent answers to `GET /api/v1/election`, `here` the agents' names by peer id.
    """
    for mesh in sorted({str(said["mesh"]) for said in elections.values() if said.get("mesh")}):
        members = [said for said in elections.values() if said.get("mesh") == mesh]
        if any(said.get("leader") for said in members):
            continue
        names = {name for name, said in elections.items() if said.get("mesh") == mesh}
        voters = {
            str(member["peer_id"]): str(member["agent_id"])
            for said in members
            for member in said.get("members") or ()
            if member["voter"]
        }
        gone = sorted(f"{name} ({peer})" for peer, name in voters.items() if here.get(peer) not in names)
        if voters and len(gone) * 2 >= len(voters):
            return (
                f"mesh {mesh} can have no leader: {len(voters) - len(gone)} of its {len(voters)} votes are "
                f"here, and it needs more than half. Missing: {', '.join(gone)}"
            )
    return ""


def _voters(members: int) -> int:
    """The largest odd number of members, at most CHORUS_VOTERS."""
    setting = os.environ.get("CHORUS_VOTERS", "")
    most = min(members, int(setting) if setting.isdecimal() and setting.isascii() else DEFAULT_VOTERS)
    return most if most % 2 else most - 1


def _until_interrupted(context: MeshContext, started: list[Started]) -> int:
    code = 0
    try:
        while True:
            for agent in started:
                agent.check_alive()
            # An event and not a sleep: signals wake it at once.
            threading.Event().wait(0.5)
    except KeyboardInterrupt:
        _say("stopping; Ctrl-C again gives unfinished tasks back to the mesh")
    except CtlError as error:
        note_lines(f"chorusctl: {error}")
        code = FAILED
    _stop(list(context.agents))
    contexts.stopped(context)
    return code


def _abandon(started: list[Started]) -> None:
    for agent in started:
        if agent.process.poll() is None:
            agent.process.terminate()
    for agent in started:
        try:
            agent.process.wait(HURRY_TIMEOUT_S)
        except Exception:
            agent.process.kill()


def _stop(agents: list[AgentEntry]) -> None:
    signal_all(agents, signal.SIGTERM)
    try:
        left = wait_gone(agents, STOP_TIMEOUT_S)
    except KeyboardInterrupt:
        left = agents
    if not left:
        return
    signal_all(left, signal.SIGTERM)
    left = wait_gone(left, HURRY_TIMEOUT_S)
    if left:
        signal_all(left, signal.SIGKILL)
        _say(f"killed, as they did not stop: {', '.join(agent.agent_id for agent in left)}")


def _say(text: str) -> None:
    if text:
        note(text)

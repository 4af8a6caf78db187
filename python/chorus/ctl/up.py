"""`chorusctl up` and `down`: a mesh of agents on this machine, with data folders that last."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from dataclasses import asdict, replace
from typing import Any, Final

import httpx

from chorus.ctl import contexts
from chorus.ctl.agents import POLL_S, Started, alive, signal_all, start, tail, wait_gone
from chorus.ctl.contexts import AgentEntry, MeshContext
from chorus.ctl.problems import FAILED, CtlError

# From the first start to a complete mesh: discovery, an election, and 10 s of steadiness before later votes.
READY_TIMEOUT_S: Final = 180.0
PROBE_TIMEOUT_S: Final = 3.0
# In-flight work is finished first; the agents' own limit is 300 s unless set.
STOP_TIMEOUT_S: Final = 330.0
HURRY_TIMEOUT_S: Final = 60.0
DEFAULT_VOTERS: Final = 5


def up(arguments: Namespace) -> int:
    """Brings a mesh up and, unless detached, keeps it until Ctrl-C."""
    name = contexts.check_name(arguments.context or os.environ.get("CHORUS_CONTEXT") or contexts.DEFAULT_NAME)
    context = _prepare(name)
    running = [agent for agent in context.agents if alive(agent)]
    if running:
        raise CtlError(
            f"context {name} is up already ({len(running)} agents); chorusctl down --context {name} ends it"
        )
    _say(_provider_notice())
    # A terminal's Ctrl-C and a service manager's SIGTERM mean the same here.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started: list[Started] = []
    try:
        context = _bring_up(context, arguments, started)
    except BaseException as error:
        _abandon(started)
        if isinstance(error, KeyboardInterrupt):
            raise CtlError("interrupted; the agents were stopped", 130) from None
        raise
    if arguments.json:
        print(json.dumps({"agents": [asdict(agent) for agent in context.agents]}), flush=True)
    else:
        for agent in context.agents:
            print(f"{agent.agent_id}  {agent.api}  {agent.multiaddr}", flush=True)
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


def _prepare(name: str) -> MeshContext:
    context = contexts.load(name)
    wanted = os.environ.get("CHORUS_LICENSE_ID")
    if context is None:
        return MeshContext(name, wanted or f"dev-{name}-{os.urandom(4).hex()}")
    return replace(context, license_id=wanted) if wanted else context


def _provider_notice() -> str:
    if os.environ.get("CHORUS_AI_PROVIDER", "none") == "none":
        return "no model is configured: the agents' provider is none, and they take only tasks with commands"
    return ""


def _bring_up(context: MeshContext, arguments: Namespace, started: list[Started]) -> MeshContext:
    deadline = time.monotonic() + READY_TIMEOUT_S
    alone = _nobody_else(context)
    for number in range(1, arguments.agents + 1):
        name = f"agent-{number}"
        settings = {
            "CHORUS_LICENSE_ID": context.license_id,
            "CHORUS_AGENT_ID": name,
            "CHORUS_DATA_DIR": str(context.folder / name),
            "CHORUS_AI_PROVIDER": os.environ.get("CHORUS_AI_PROVIDER", "none"),
        }
        if alone and number == 1:
            # There is nobody to look for: it founds the mesh that the others join.
            settings["CHORUS_ELECTION_JOIN_WAIT"] = os.environ.get("CHORUS_ELECTION_JOIN_WAIT", "0s")
        if started:
            first = started[0].entry().multiaddr
            inherited = os.environ.get("CHORUS_BOOTSTRAP_PEERS", "")
            settings["CHORUS_BOOTSTRAP_PEERS"] = ",".join(filter(None, (inherited, first)))
        _say(f"starting {name}")
        started.append(start(name, context.folder / name, settings, detached=arguments.detach))
        if number == 1:
            _wait(started, deadline, "listen", lambda: started[0].describe() is not None)
    _wait(started, deadline, "listen", lambda: all(agent.describe() for agent in started))
    context = replace(context, agents=tuple(agent.entry() for agent in started))
    contexts.save(context)
    _say("waiting until every agent is ready and the mesh is complete")
    with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as http:
        missing = _Missing(context, http)
        try:
            _wait(started, deadline, "become ready", missing.none)
        except TimeoutError:
            raise CtlError(missing.explain(started)) from None
    return context


def _nobody_else(context: MeshContext) -> bool:
    """Whether this licence was made here and just now, so that no agent can have a mesh of it."""
    shared = os.environ.get("CHORUS_LICENSE_ID") or os.environ.get("CHORUS_CLUSTER_SECRET")
    return not (shared or os.environ.get("CHORUS_CLUSTER_SECRET_FILE") or context.folder.exists())


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

    def __init__(self, context: MeshContext, http: httpx.Client) -> None:
        self._context = context
        self._http = http
        self._why: dict[str, str] = {}

    def none(self) -> bool:
        """Whether nothing is missing."""
        self._why = {}
        meshes = set()
        for agent in self._context.agents:
            why, mesh = self._look(agent)
            if why:
                self._why[agent.agent_id] = why
                return False
            meshes.add(mesh)
        if len(meshes) > 1:
            self._why[self._context.agents[0].agent_id] = f"the agents are in {len(meshes)} meshes"
        return not self._why

    def explain(self, started: list[Started]) -> str:
        """Who is not ready, why, and what its log says last."""
        lines = [f"the mesh is not complete after {READY_TIMEOUT_S:g} s"]
        for agent_id, why in self._why.items():
            log = next(agent.log for agent in started if agent.name == agent_id)
            lines += [f"{agent_id}: {why}; its last words:", tail(log)]
        return "\n".join(lines)

    def _look(self, agent: AgentEntry) -> tuple[str, str | None]:
        alone = len(self._context.agents) == 1
        try:
            health = self._http.get(f"{agent.health}/health").json()
            waived = {"peers"} if alone else set()
            failing = [
                f"{check['name']}: {check['detail']}"
                for check in health["checks"]
                if not check["ok"] and check["name"] not in waived | {"clock", "dht", "capacity"}
            ]
            if failing or not health["checks"]:
                return "; ".join(failing) or "starting", None
            status = self._http.get(f"{agent.api}/api/v1/status", headers=self._bearer(agent)).json()
        except (httpx.HTTPError, ValueError, KeyError, OSError) as error:
            return f"does not answer yet ({error})", None
        mesh = status["mesh"]
        count = len(self._context.agents)
        if mesh["leader"] is None or mesh["members"] < count:
            return f"{mesh['members']} of {count} members are in its mesh", None
        wanted = _voters(mesh["members"])
        if mesh["voters"] < wanted:
            return f"{mesh['voters']} of {wanted} voters are in", None
        if mesh["applied"] < mesh["committed"] and mesh["applied"] == 0:
            return "its table is empty", None
        return "", mesh["id"]

    @staticmethod
    def _bearer(agent: AgentEntry) -> dict[str, str]:
        with open(agent.token_file, encoding="ascii") as file:  # noqa: PTH123
            return {"Authorization": f"Bearer {file.read().strip()}"}


def _voters(members: int) -> int:
    """The largest odd number of members, at most CHORUS_VOTERS."""
    setting = os.environ.get("CHORUS_VOTERS", "")
    most = min(members, int(setting) if setting.isdigit() else DEFAULT_VOTERS)
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
        print(f"chorusctl: {error}", file=sys.stderr)
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
        print(text, file=sys.stderr, flush=True)

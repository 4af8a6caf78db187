"""`chorusctl doctor`: what an agent needs of this machine, what of it is missing, and how to mend it."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import httpx

from chorus.config import Settings, SettingsError, exposure
from chorus.config.load import load_settings
from chorus.config.secret import SECRET_MIN_BYTES
from chorus.ctl import contexts, daemon, model_check
from chorus.ctl.client import Client
from chorus.ctl.contexts import state_folder
from chorus.ctl.finding import Finding
from chorus.ctl.problems import CtlError
from chorus.ctl.terminal import say, say_json
from chorus.ctl.up import provider

DISK_FREE_MIN_BYTES: Final = 2 * 1024**3
DOCKER_TIMEOUT_S: Final = 5
HEALTH_TIMEOUT_S: Final = 2.0
PORT_MAX: Final = 65_535
HEALTH_PORT: Final = ("CHORUS_HEALTH_PORT", 8081)
API_URL: Final = "CHORUS_API_URL"
_PORTS: Final = (("CHORUS_P2P_PORT", 9000), ("CHORUS_API_PORT", 8080), HEALTH_PORT)
_GET_IMAGES: Final = "chorusctl images build, or chorusctl images pull where there is a registry"
_IMAGES: Final = ("anthonyrawlins/chorus-base:latest", "anthonyrawlins/chorus-python-dev:latest")


def doctor(arguments: Namespace) -> int:
    """Looks at everything; exit code 1 when something that is needed is missing."""
    findings: list[Finding] = []
    for look in _LOOKS:
        name = look.__name__.strip("_")
        try:
            findings += look()
        except CtlError as error:
            findings.append(Finding(name, False, str(error)))
        except Exception as error:
            # It looks at what is broken: whatever that raises is what it has to tell.
            why = f"cannot be looked at: {type(error).__name__}: {error}"
            findings.append(Finding(name, False, why, "look at the variables of the environment it names"))
    if arguments.json:
        say_json({"checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else ("MISS" if finding.needed else "note")
            say(f"{mark}  {finding.name}: {finding.detail}")
            if not finding.ok and finding.remedy:
                say(f"      → {finding.remedy}")
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 1


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return [Finding("python", ok, version, "install Python 3.11 or newer")]


def _extension() -> list[Finding]:
    try:
        importlib.import_module("chorus._core")
    except ImportError as error:
        return [
            Finding(
                "core",
                False,
                f"the Rust extension does not load: {error}",
                "pip install chorus-agent, or make wheel",
            )
        ]
    return [Finding("core", True, "the Rust extension loads")]


def _docker() -> list[Finding]:
    import docker
    from docker.errors import DockerException, ImageNotFound

    try:
        client = docker.from_env(timeout=DOCKER_TIMEOUT_S)
        info = client.info()
    except (DockerException, OSError) as error:
        return [Finding("docker", False, f"the daemon cannot be reached: {error}", daemon.REMEDY)]
    cgroup = f"{info.get('ServerVersion')}, cgroup v{info.get('CgroupVersion', '1')}, {info.get('Driver')}"
    findings = [Finding("docker", True, cgroup)]
    for key, what in (("MemoryLimit", "memory"), ("PidsLimit", "process")):
        if info.get(key) is False:
            remedy = (
                "enable the cgroup controller (kernel command line: cgroup_enable=memory) and restart Docker"
            )
            findings.append(Finding("cgroups", False, f"no {what} limits for containers", remedy))
    for image in _IMAGES:
        try:
            client.images.get(image)
        except ImageNotFound:
            findings.append(Finding("image", False, f"{image} is not here", _GET_IMAGES))
        except DockerException as error:
            findings.append(Finding("image", False, f"{image}: {error}", _GET_IMAGES))
        else:
            findings.append(Finding("image", True, image))
    client.close()
    return findings


def _ports() -> list[Finding]:
    findings = []
    for variable, default in _PORTS:
        setting = os.environ.get(variable) or str(default)
        if not _is_port(setting):
            remedy = f"set {variable} to a number up to {PORT_MAX}, or not at all"
            findings.append(Finding("port", False, f"{variable}: {setting!r} is no port", remedy))
            continue
        port = int(setting)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                findings.append(Finding("port", True, f"{port} ({variable}) is free"))
            except OSError as error:
                remedy = f"set {variable} to a free port (0 takes any), or stop the program that has it"
                # `up` takes free ports; only an agent with the defaults needs these.
                findings.append(
                    Finding("port", False, f"{port} ({variable}): {error.strerror}", remedy, False)
                )
    return findings


def _is_port(setting: str) -> bool:
    return setting.isascii() and setting.isdigit() and int(setting[:6]) <= PORT_MAX


def _disk() -> list[Finding]:
    folder = state_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**3:.1f} GiB free at {folder}"
    remedy = "free some space, or set XDG_STATE_HOME or CHORUS_DATA_DIR to a larger disk"
    findings = [Finding("disk", free >= DISK_FREE_MIN_BYTES, detail, remedy)]
    if not os.access(folder, os.W_OK):
        findings.append(
            Finding("disk", False, f"{folder} is not writable", "set XDG_STATE_HOME or CHORUS_DATA_DIR")
        )
    return findings


def _kernel() -> list[Finding]:
    release = os.uname().release
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    detail = f"Linux {release}, cgroup v{2 if unified else 1}"
    findings = [Finding("kernel", os.uname().sysname == "Linux", detail, "CHORUS agents run on Linux")]
    if not limit.exists():
        findings.append(Finding("kernel", False, "/proc is not mounted", "mount /proc", needed=True))
    return findings


def _network() -> list[Finding]:
    """What an agent started with this environment would let in."""
    warning = _exposed(os.environ)
    if not warning:
        return [Finding("network", True, "nothing to warn of")]
    return [Finding("network", False, warning, needed=False)]


def _model() -> list[Finding]:
    """The model that an agent started with this environment would have."""
    if os.environ.get(API_URL):
        return []  # its agents say what they have
    try:
        return model_check.models(_settings({**os.environ, "CHORUS_AI_PROVIDER": provider()}).ai)
    except SettingsError as error:
        why = f"the settings are wrong: {error}"
        return [Finding("model", False, why, "mend what is named", needed=False)]


def _mesh() -> list[Finding]:
    """What the running agents say of their mesh: each tells in its health what is wrong, and what to do."""
    if os.environ.get(API_URL):
        return _mesh_of_api()
    findings: dict[str, Finding] = {}
    running = 0
    for name, url in _healths().items():
        try:
            said = httpx.get(f"{url}/health", timeout=HEALTH_TIMEOUT_S, trust_env=False).json()
            for part in ("election", "coordinator"):
                if said[part]["ok"] is not True:
                    detail = str(said[part]["detail"])
                    findings.setdefault(detail, Finding("mesh", False, f"{name}: {detail}"))
            for warning in map(str, said.get("warnings") or ()):
                findings.setdefault(warning, Finding("mesh", False, warning, needed=False))
            if (ai := said.get("ai")) is not None and ai["ok"] is not True:
                findings.setdefault(f"{name}: ai", _without_model(name, ai["detail"]))
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it does not run or has only begun to, or another program has its port
        running += 1
    if not running:
        return [Finding("mesh", True, "no agent runs here")]
    return [*findings.values()] or [Finding("mesh", True, "the agents here say that all is well")]


def _mesh_of_api() -> list[Finding]:
    """What the agent at CHORUS_API_URL says of its mesh and its members. Raises CtlError."""
    with Client(contexts.target(None, os.environ)) as client:
        mesh, members = client.get("/api/v1/status")["mesh"], client.get("/api/v1/agents")["items"]
    url = os.environ[API_URL]
    if mesh["leader"] is None:
        remedy = "chorusctl members names who is away; if they are lost for good, chorusctl members recover"
        return [Finding("mesh", False, f"the mesh of {url} has no leader ({mesh['state']})", remedy)]
    found = [
        Finding("mesh", True, f"{url} answers; {mesh['leader']} leads {mesh['present']} of {mesh['members']}")
    ]
    return found + [
        _without_model(one["agent_id"], one["model_reason"])
        for one in members
        if one["present"] and not one["models"]
    ]


def _without_model(agent: str, why: object) -> Finding:
    detail = f"{agent} has no model: {why or 'it says no reason'}"
    return Finding("model", False, detail, "docs/mind.md names the variables of models", needed=False)


def _healths() -> dict[str, str]:
    """The health addresses of the agents that may run here: those of the last context, else the one that this
    environment would start.
    """
    name = os.environ.get("CHORUS_CONTEXT") or contexts.last_name()
    context = contexts.load(name) if name else None
    if context is not None and context.agents:
        return {agent.agent_id: agent.health for agent in context.agents}
    port = os.environ.get(HEALTH_PORT[0]) or str(HEALTH_PORT[1])
    return {"the agent here": f"http://127.0.0.1:{port}"} if _is_port(port) else {}


def _exposed(environ: Mapping[str, str]) -> str:
    try:
        return exposure(_settings(environ))
    except SettingsError:
        return ""  # a start says what is wrong with them


def _settings(environ: Mapping[str, str]) -> Settings:
    """What an agent would be started with. Raises SettingsError."""
    # One that `up` starts has a secret of its own unless the environment names a licence or a secret.
    made = {"CHORUS_LICENSE_ID": "dev-up", "CHORUS_CLUSTER_SECRET": "x" * SECRET_MIN_BYTES}
    named = any(environ.get(name) or environ.get(f"{name}_FILE") for name in made)
    return load_settings({**environ, **({} if named else made)})


_LOOKS: Final[tuple[Callable[[], list[Finding]], ...]] = (
    _python,
    _extension,
    _kernel,
    _docker,
    _ports,
    _disk,
    _network,
    _model,
    _mesh,
)

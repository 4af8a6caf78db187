"""Everything between the command and the first process, in the contract's order; each step refuses with a
line of its own.

Settings and licence come before Docker and the network. A licence of KACHING is bound to the agent's
identity, so that with one the data directory is opened first.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chorus.agent import folders
from chorus.agent.departure import Departed, depart_if_asked
from chorus.agent.docker_check import docker_problem
from chorus.agent.identity import agent_id_for, load_peer_id, load_sign
from chorus.agent.licensing import ask, give_back, lease_for, licence_of
from chorus.agent.ports import Reservation, reserve
from chorus.agent.problems import StartupError, docker_line, license_line, setting_line
from chorus.agent.replacement import replace_if_lost
from chorus.agent.version import build_info
from chorus.blobs import BlobStore
from chorus.config import (
    Assignment,
    MeshSettings,
    Paths,
    Settings,
    SettingsError,
    exposure,
    save_run_settings,
)
from chorus.config.load import Boot, boot_settings, complete, timing_of
from chorus.config.masked import SecretText
from chorus.config.read import warnings
from chorus.license import GATE_SETTINGS, Gate, Licence, LicenceRefused
from chorus.whoosh import FETCH_TIMEOUT_S, Load, in_thread, load_for

if TYPE_CHECKING:
    from chorus.license.lease import Lease

LoadPeerId = Callable[[Path], str]
LoadSign = Callable[[Path], Callable[[bytes], bytes]]


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the environment says of the assignment, what the first load brought, if there is an address to
    load from, and whether the environment names the agent.
    """

    environment: Assignment
    first: Load | None
    named: bool

    @property
    def stagger_s(self) -> float:
        """The span over which agents that start together are to be spread."""
        document = None if self.first is None else self.first.document
        return 0.0 if document is None else document.join_stagger_ms / 1000


class Prepared:
    """A start that may go on: complete settings, and what is held until the agent ends. `lease` is None with
    a development licence.
    """

    def __init__(
        self,
        settings: Settings,
        licence: Licence,
        lease: Lease | None,
        notices: list[str],
        held: contextlib.ExitStack,
        assigned: Assigned,
    ) -> None:
        self.settings = settings
        self.assigned = assigned
        self.licence = licence
        self.lease = lease
        self.notices = notices
        self._held = held

    def close(self) -> None:
        """Gives lease, ports and folders back."""
        self._held.close()


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the data directory says, opened and locked."""

    departed: Departed
    replaced: str
    peer_id: str


def prepare(
    environ: Mapping[str, str], load_identity: LoadPeerId = load_peer_id, load_sign: LoadSign = load_sign
) -> Prepared:
    """Runs all steps; raises `StartupError` at the first that fails."""
    boot, gate = boot_settings(environ), Gate()
    licence = _pass(boot, gate)
    lease, begun = None, None
    with contextlib.ExitStack() as held:
        if licence is None:
            begun = _begin(boot, load_identity, held)
            paths = Paths(boot["CHORUS_DATA_DIR"], boot["CHORUS_RUN_DIR"])
            lease = lease_for(boot, begun.peer_id, load_sign(paths.identity_key), paths.license)
            held.callback(give_back, lease)
            granted = ask(lease)
            licence = licence_of(granted, lease)
            settings = _complete(boot, granted.secret, granted.claims.cluster_id)
        else:
            settings = _complete(boot)
        settings, assigned = _assign(settings, named=boot.is_set("CHORUS_AGENT_ID"))
        if why := docker_problem(settings.docker_host, environ):
            raise StartupError(docker_line(why))
        settings = _reserve_ports(settings, held, chosen=bool(environ.get("CHORUS_P2P_HOST")))
        begun = begun or _begin(boot, load_identity, held)
        settings = _with_identity(settings, begun)
        checks, failures = (gate.checks, 0) if lease is None else lease.counts
        settings = replace(settings, license_checks=checks, license_failures=failures)
        held.callback(folders.open_run_dir(settings.paths).close)
        held.callback(folders.remove_run_dir, settings.paths)
        save_run_settings(settings)
        said = [
            _keep_copy(settings, assigned.first),
            licence.notice,
            begun.departed.said,
            begun.replaced,
            exposure(settings),
        ]
        notices = [*filter(None, said), *warnings(environ)]
        return Prepared(settings, licence, lease, notices, held.pop_all(), assigned)


def _pass(boot: Boot, gate: Gate) -> Licence | None:
    """The licence that needs no asking. Raises `StartupError` with all that is wrong with it and the
    settings.
    """
    lines = [setting_line(problem) for problem in boot.problems]
    licence = None
    if not any(problem.startswith(GATE_SETTINGS) for problem in boot.problems):
        try:
            # Asked whatever else is wrong, so that its line stands among the others.
            licence = gate.check(
                boot["CHORUS_LICENSE_ID"],
                boot["CHORUS_KACHING_URL"],
                boot["CHORUS_KACHING_PUBLIC_KEY"],
            )
        except LicenceRefused as refused:
            lines.insert(0, license_line(str(refused)))
    if lines:
        raise StartupError(*lines)
    return licence


def _assign(settings: Settings, *, named: bool) -> tuple[Settings, Assigned]:
    """The settings with the assignment over them, if there is one. The data folder is named before."""
    environment = settings.assignment
    if not settings.assign_url:
        return settings, Assigned(environment, None, named)
    try:
        first = asyncio.run(in_thread(lambda: load_for(settings), FETCH_TIMEOUT_S + 1))
    except TimeoutError:
        first = Load(error=f"ASSIGN_URL did not answer within {FETCH_TIMEOUT_S:g} s")
    if (document := first.document) is not None:
        update: dict[str, Any] = {"assignment": document.over(environment)}
        if document.agent_id and not named:
            update["agent_id"] = document.agent_id
        settings = replace(settings, **update)
    return settings, Assigned(environment, first, named)


def _keep_copy(settings: Settings, first: Load | None) -> str:
    """Keeps what the first load brought; what to tell when that failed."""
    if first is not None and first.copy is not None:
        try:
            first.copy.save(settings.paths.assigned_json)
        except OSError as error:
            return f"the copy of the assignment was not kept: {error}"
    return ""


def _complete(boot: Boot, secret: bytes = b"", cluster_id: str = "") -> Settings:
    try:
        return complete(boot, secret, cluster_id)
    except SettingsError as error:
        raise StartupError(*map(setting_line, error.problems)) from None


def _begin(boot: Boot, load_identity: LoadPeerId, held: contextlib.ExitStack) -> _Begun:
    """Opens the data directory, and settles who this agent is."""
    paths = Paths(boot["CHORUS_DATA_DIR"], boot["CHORUS_RUN_DIR"])
    held.callback(folders.open_data_dir(paths.data).close)
    BlobStore(paths.blobs).recover()
    # Before the identity is judged: what is left of the old mesh would look like votes that are lost.
    departed = depart_if_asked(paths, load_identity, MeshSettings.of_founder(timing_of(boot)))
    replaced = replace_if_lost(paths, load_identity)
    return _Begun(departed, replaced, load_identity(paths.identity_key))


def _reserve_ports(settings: Settings, held: contextlib.ExitStack, *, chosen: bool) -> Settings:
    def port(name: str, hosts: tuple[str, ...], number: int, *, skip_missing: bool = False) -> Reservation:
        got = reserve(name, hosts, number, skip_missing=skip_missing)
        held.callback(got.close)
        return got

    api_hosts = (settings.api_host,)
    # Addresses that nobody chose are skipped where missing: a machine without IPv6 has no ::1.
    p2p = port("CHORUS_P2P_PORT", settings.p2p_hosts, settings.p2p_port, skip_missing=not chosen)
    api = port("CHORUS_API_PORT", api_hosts, settings.api_port)
    health = port("CHORUS_HEALTH_PORT", api_hosts, settings.health_port)
    hosts = p2p.hosts
    return replace(settings, p2p_hosts=hosts, p2p_port=p2p.port, api_port=api.port, health_port=health.port)


def _with_identity(settings: Settings, begun: _Begun) -> Settings:
    token = settings.api_token.get_secret_value() or folders.api_token(settings.paths.api_token)
    log_format = settings.log_format
    if log_format == "auto":
        # The processes write into the parent's pipe; only the parent sees whether a person reads along.
        log_format = "text" if sys.stderr.isatty() else "json"
    return replace(
        settings,
        departed=begun.departed.said,
        left_mesh=begun.departed.left,
        new_identity=begun.replaced,
        peer_id=begun.peer_id,
        agent_id=settings.agent_id or agent_id_for(begun.peer_id),
        api_token=SecretText(token),
        version=build_info()[0],
        log_format=log_format,
    )

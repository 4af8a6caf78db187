"""Everything between the command and the first process, in the contract's order; each step refuses with a
line of its own.

Settings and licence come before anything that touches Docker, the network or the disk.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from chorus.agent import folders
from chorus.agent.departure import depart_if_asked
from chorus.agent.docker_check import docker_problem
from chorus.agent.identity import agent_id_for, load_peer_id
from chorus.agent.ports import Reservation, reserve
from chorus.agent.problems import StartupError, docker_line, license_line, setting_line
from chorus.agent.replacement import replace_if_lost
from chorus.agent.version import build_info
from chorus.blobs import BlobStore
from chorus.config import (
    Assignment,
    MeshSettings,
    Settings,
    SettingsError,
    boot_settings,
    complete,
    exposure,
    save_run_settings,
)
from chorus.config.read import warnings
from chorus.license import Gate, Licence, LicenceRefused
from chorus.whoosh import FETCH_TIMEOUT_S, Load, in_thread, load_for

LoadPeerId = Callable[[Path], str]


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
    """A start that may go on: complete settings, and what is held until the agent ends."""

    def __init__(
        self,
        settings: Settings,
        licence: Licence,
        notices: list[str],
        locks: list[folders.Lock],
        ports: list[Reservation],
        assigned: Assigned,
    ) -> None:
        self.settings = settings
        self.assigned = assigned
        self.licence = licence
        self.notices = notices
        self._locks = locks
        self._ports = ports

    def close(self) -> None:
        """Gives ports and folders back."""
        for port in self._ports:
            port.close()
        folders.remove_run_dir(self.settings.paths)
        for lock in self._locks:
            lock.close()


def prepare(environ: Mapping[str, str], load_identity: LoadPeerId = load_peer_id) -> Prepared:
    """Runs all steps; raises `StartupError` at the first that fails."""
    settings, licence, named = _settings_and_licence(environ)
    settings, assigned = _assign(settings, named)
    if why := docker_problem(settings.docker_host, environ):
        raise StartupError(docker_line(why))
    settings, ports = _reserve_ports(settings, chosen=bool(environ.get("CHORUS_P2P_HOST")))
    locks: list[folders.Lock] = []
    try:
        locks.append(folders.open_data_dir(settings.data_dir))
        BlobStore(settings.paths.blobs).recover()
        # Before the identity is judged: what is left of the old mesh would look like votes that are lost.
        departed = depart_if_asked(settings.paths, load_identity, MeshSettings.of_founder(settings))
        replaced = replace_if_lost(settings.paths, load_identity)
        told = {"departed": departed.said, "left_mesh": departed.left, "new_identity": replaced}
        settings = _with_identity(settings, load_identity).model_copy(update=told)
        locks.append(folders.open_run_dir(settings.paths))
        save_run_settings(settings)
    except BaseException:
        for port in ports:
            port.close()
        for lock in locks:
            lock.close()
        raise
    kept: list[str] = []
    _keep_copy(settings, assigned.first, kept)
    notices = [*kept, *filter(None, [departed.said, replaced, exposure(settings)]), *warnings(environ)]
    return Prepared(settings, licence, notices, locks, ports, assigned)


def _settings_and_licence(environ: Mapping[str, str]) -> tuple[Settings, Licence, bool]:
    """The settings that the environment and the licence make, and whether they name the agent."""
    boot = boot_settings(environ)
    lines = []
    licence = None
    gate = Gate()
    try:
        # Asked whatever else is wrong, so that its line stands among the others.
        licence = gate.check(boot["CHORUS_LICENSE_ID"], boot["CHORUS_KACHING_URL"])
    except LicenceRefused as refused:
        lines.append(license_line(str(refused)))
    settings = None
    try:
        settings = complete(boot)
    except SettingsError as error:
        lines.extend(setting_line(problem) for problem in error.problems)
    if licence is None or settings is None:
        raise StartupError(*lines)
    counted = {"license_checks": gate.checks, "license_failures": gate.failures}
    return settings.model_copy(update=counted), licence, boot.is_set("CHORUS_AGENT_ID")


def _assign(settings: Settings, named: bool) -> tuple[Settings, Assigned]:
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
        settings = settings.model_copy(update=update)
    return settings, Assigned(environment, first, named)


def _keep_copy(settings: Settings, first: Load | None, notices: list[str]) -> None:
    if first is not None and first.copy is not None:
        try:
            first.copy.save(settings.paths.assigned_json)
        except OSError as error:
            notices.append(f"the copy of the assignment was not kept: {error}")


def _reserve_ports(settings: Settings, *, chosen: bool) -> tuple[Settings, list[Reservation]]:
    got: list[Reservation] = []
    api_hosts = (settings.api_host,)
    try:
        # Addresses that nobody chose are skipped where missing: a machine without IPv6 has no ::1.
        got.append(reserve("CHORUS_P2P_PORT", settings.p2p_hosts, settings.p2p_port, skip_missing=not chosen))
        got.append(reserve("CHORUS_API_PORT", api_hosts, settings.api_port))
        got.append(reserve("CHORUS_HEALTH_PORT", api_hosts, settings.health_port))
    except BaseException:
        for each in got:
            each.close()
        raise
    p2p, api, health = got
    update = {"p2p_hosts": p2p.hosts, "p2p_port": p2p.port, "api_port": api.port, "health_port": health.port}
    return settings.model_copy(update=update), got


def _with_identity(settings: Settings, load_identity: LoadPeerId) -> Settings:
    peer_id = load_identity(settings.paths.identity_key)
    token = settings.api_token.get_secret_value() or folders.api_token(settings.paths.api_token)
    log_format = settings.log_format
    if log_format == "auto":
        # The processes write into the parent's pipe; only the parent sees whether a person reads along.
        log_format = "text" if sys.stderr.isatty() else "json"
    return settings.model_copy(
        update={
            "peer_id": peer_id,
            "agent_id": settings.agent_id or agent_id_for(peer_id),
            "api_token": SecretStr(token),
            "version": build_info()[0],
            "log_format": log_format,
        }
    )

"""From the environment to one frozen `Settings`, in two steps: what the environment alone says, and what the
licence adds. Here are the defaults and rules that span several settings.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from chorus.config.directories import default_data_dir, default_run_dir, socket_path_problem
from chorus.config.groups.assignment import Assignment
from chorus.config.groups.mesh import TimingSettings
from chorus.config.groups.models import AiSettings
from chorus.config.groups.sandbox import SandboxSettings
from chorus.config.masked import SecretData
from chorus.config.model import Settings, SettingsError
from chorus.config.private import is_private
from chorus.config.read import Value, read_values
from chorus.config.role_keys import role_keys_problem
from chorus.config.rules import RulesError, read_rules
from chorus.config.secret import NO_SECRET, SECRET_MIN_BYTES, choose_secret, derive_cluster_id
from chorus.config.setting import Group, declared
from chorus.config.values import typed
from chorus.config.variables import BY_NAME
from chorus.license.shown import kind_of, shown

ALL_ADDRESSES: Final = ("0.0.0.0", "::")
LOOPBACK: Final = ("127.0.0.1", "::1")
# A leader is given up after missing at least this many heartbeats.
HEARTBEATS_PER_TIMEOUT: Final = 3
# A lease must survive the choice of a new leader.
ELECTION_TIMEOUTS_PER_LEASE: Final = 2
BOOT_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Boot:
    """What the environment says, read and checked; a licence may give what is missing."""

    values: Mapping[str, Value]
    # One sentence for each mistake.
    problems: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        """The value of a variable."""
        return self.values[name].value

    def is_set(self, name: str) -> bool:
        """Whether the environment says something about a variable."""
        return self.values[name].source in ("environment", "file")


def boot_settings(environ: Mapping[str, str]) -> Boot:
    """Reads and checks everything; touches no folder."""
    problems: list[str] = []
    values = read_values(environ, problems)
    boot = Boot(values, ())
    license_id = boot["CHORUS_LICENSE_ID"]
    if (given := given_secret(boot)) and len(given) < SECRET_MIN_BYTES:
        problems.append(
            f"CHORUS_CLUSTER_SECRET: expected a secret of at least {SECRET_MIN_BYTES} bytes; it has "
            f"{len(given)}. Make one with: openssl rand -hex 32"
        )
    # A licence server may give one; not even a wrong address of one says that there is none.
    if license_id and not environ.get("CHORUS_KACHING_URL") and not choose_secret(given, b"", license_id):
        problems.append(NO_SECRET)
    role_keys_file = boot["CHORUS_ROLE_KEYS_FILE"]
    if role_keys_file and (problem := role_keys_problem(role_keys_file, boot["CHORUS_AGENT_ROLE"])):
        problems.append(f"CHORUS_ROLE_KEYS_FILE: {problem}")
    _check_rules(boot, problems)
    _check_models(boot, problems)
    _check_backbeat(boot, problems)
    if boot["ASSIGN_TOKEN"] and not is_private(boot["ASSIGN_URL"]):
        problems.append(
            "ASSIGN_TOKEN: expected an ASSIGN_URL with https, as a token goes over TLS or loopback only"
        )
    values["CHORUS_SHHH_RULES_FILE"] = _shhh_rules(values["CHORUS_SHHH_RULES_FILE"], problems)
    if boot["CHORUS_DATA_DIR"] is None:
        made = default_data_dir(environ, boot["CHORUS_AGENT_ID"], boot["CHORUS_P2P_PORT"])
        values["CHORUS_DATA_DIR"] = Value(made, str(made), "default")
    if boot["CHORUS_RUN_DIR"] is None:
        made = default_run_dir(environ, boot["CHORUS_DATA_DIR"])
        values["CHORUS_RUN_DIR"] = Value(made, str(made), "default")
    if too_long := socket_path_problem(boot["CHORUS_RUN_DIR"]):
        problems.append(f"CHORUS_RUN_DIR: {too_long}")
    return Boot(values, tuple(problems))


def with_licence(boot: Boot, licence_secret: bytes = b"", licence_cluster: str = "") -> Boot:
    """The same with what follows from the licence. Raises `SettingsError` with all problems at once.

    `licence_secret` and `licence_cluster` are what KACHING gave, empty where it gave none.
    """
    if boot.problems:
        raise SettingsError(list(boot.problems))
    license_id, kaching = boot["CHORUS_LICENSE_ID"], boot["CHORUS_KACHING_URL"]
    secret = choose_secret(given_secret(boot), licence_secret, license_id)
    if not secret:
        raise SettingsError([NO_SECRET])
    values = dict(boot.values)
    source = values["CHORUS_CLUSTER_SECRET"].source if boot.is_set("CHORUS_CLUSTER_SECRET") else "licence"
    values["CHORUS_CLUSTER_SECRET"] = Value(SecretData(secret), "", source)
    values["CHORUS_LICENSE_ID"] = Value(
        shown(license_id, kaching), shown(license_id, kaching), boot.values["CHORUS_LICENSE_ID"].source
    )
    if not boot["CHORUS_CLUSTER_ID"]:
        cluster = licence_cluster or derive_cluster_id(license_id)
        values["CHORUS_CLUSTER_ID"] = Value(cluster, cluster, "licence")
    if not boot["CHORUS_P2P_HOST"]:
        development = kind_of(license_id, kaching) == "development"
        hosts = LOOPBACK if development else ALL_ADDRESSES
        values["CHORUS_P2P_HOST"] = Value(hosts, ",".join(hosts), "licence" if development else "default")
    return Boot(values, ())


def complete(boot: Boot, licence_secret: bytes = b"", licence_cluster: str = "") -> Settings:
    """The settings, with what follows from the licence. Raises `SettingsError` with all problems at once."""
    whole = with_licence(boot, licence_secret, licence_cluster)
    return Settings(
        **_fields(Settings, whole),
        assignment=Assignment(**_fields(Assignment, whole)),
        sandbox=SandboxSettings(**_fields(SandboxSettings, whole)),
        ai=AiSettings(**_fields(AiSettings, whole)),
        boot_id=secrets.token_hex(BOOT_ID_BYTES),
        license_kind=kind_of(boot["CHORUS_LICENSE_ID"], boot["CHORUS_KACHING_URL"]),
        secret_derived=not boot.is_set("CHORUS_CLUSTER_SECRET") and not licence_secret,
        network_open=any(not ipaddress.ip_address(host).is_loopback for host in whole["CHORUS_P2P_HOST"]),
    )


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads and checks everything; raises `SettingsError` with all problems at once. Touches no folder."""
    return complete(boot_settings(environ))


def _fields(group: type[Group], boot: Boot) -> dict[str, Any]:
    return typed(group, {field: boot[setting.name] for field, setting in declared(group)})


def timing_of(boot: Boot) -> TimingSettings:
    """The settings with which this agent would found a mesh; a licence has no part in them."""
    return TimingSettings(**_fields(TimingSettings, boot))


def given_secret(boot: Boot) -> bytes:
    """The cluster secret that the environment gives; b"" for none."""
    return str(boot["CHORUS_CLUSTER_SECRET"]).encode("utf-8", "surrogateescape")


def _check_rules(boot: Boot, problems: list[str]) -> None:
    heartbeat, timeout = boot["CHORUS_ELECTION_HEARTBEAT"], boot["CHORUS_ELECTION_TIMEOUT"]
    if _ms(timeout) < HEARTBEATS_PER_TIMEOUT * _ms(heartbeat):
        problems.append(
            f"CHORUS_ELECTION_TIMEOUT: expected at least {HEARTBEATS_PER_TIMEOUT} times "
            f"CHORUS_ELECTION_HEARTBEAT ({heartbeat:g}s); it is {timeout:g}s"
        )
    lease = boot["CHORUS_TASK_LEASE"]
    if _ms(lease) < ELECTION_TIMEOUTS_PER_LEASE * _ms(timeout):
        problems.append(
            f"CHORUS_TASK_LEASE: expected at least {ELECTION_TIMEOUTS_PER_LEASE} times "
            f"CHORUS_ELECTION_TIMEOUT ({timeout:g}s); it is {lease:g}s"
        )
    ports: dict[int, str] = {}
    for name in ("CHORUS_P2P_PORT", "CHORUS_API_PORT", "CHORUS_HEALTH_PORT"):
        other = ports.setdefault(boot[name], name)
        if boot[name] and other != name:
            problems.append(f"{name}: expected a port of its own; {boot[name]} is also {other}")


def _check_models(boot: Boot, problems: list[str]) -> None:
    provider, fallback = boot["CHORUS_AI_PROVIDER"], boot["CHORUS_AI_FALLBACK"]
    if fallback not in ("none", provider):
        if provider == "none":
            problems.append("CHORUS_AI_FALLBACK: expected none, as CHORUS_AI_PROVIDER is none")
    elif fallback != "none":
        problems.append(f"CHORUS_AI_FALLBACK: expected another provider than CHORUS_AI_PROVIDER, {provider}")
    if provider == "none" or "resetdata" not in (provider, fallback):
        return
    for name in ("RESETDATA_BASE_URL", "RESETDATA_API_KEY", "RESETDATA_MODEL"):
        if not boot[name]:
            problems.append(f"{name}: expected {BY_NAME[name].form}, as the provider resetdata is in use")
    for name in ("CHORUS_AI_DAILY_USD", "CHORUS_AI_MAX_USD"):
        if boot[name] is not None and boot["RESETDATA_MODEL"] not in boot["CHORUS_AI_PRICES"]:
            problems.append(f"CHORUS_AI_PRICES: expected a price for RESETDATA_MODEL, as {name} counts by it")


def _check_backbeat(boot: Boot, problems: list[str]) -> None:
    name, endpoint = "CHORUS_BACKBEAT_ENDPOINT", boot["CHORUS_BACKBEAT_ENDPOINT"]
    if not boot["CHORUS_BACKBEAT_ENABLED"] or any(problem.startswith(f"{name}:") for problem in problems):
        return
    if not endpoint:
        problems.append(f"{name}: expected {BY_NAME[name].form}, as CHORUS_BACKBEAT_ENABLED is true")
    elif endpoint.startswith("nats:") and find_spec("nats") is None:
        problems.append(f"{name}: nats needs the package nats-py: pip install 'chorus-agent[nats]'")


def _shhh_rules(said: Value, problems: list[str]) -> Value:
    """What is in the file that is named."""
    if not said.value:
        return said
    try:
        return replace(said, value=read_rules(Path(said.text).expanduser()))
    except RulesError as error:
        problems.extend(f"CHORUS_SHHH_RULES_FILE: {said.text}: {problem}" for problem in error.problems)
        return said


def _ms(seconds: float) -> int:
    # Compared as written: 0.3 is less than 3 times 0.1 to a float.
    return round(seconds * 1000)

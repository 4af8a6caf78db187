"""From the environment to one frozen `Settings`: the defaults and rules that span several settings."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretBytes, SecretStr

from chorus.config.directories import default_data_dir, default_run_dir, socket_path_problem
from chorus.config.model import AiSettings, SandboxSettings, Settings, SettingsError
from chorus.config.read import read_values
from chorus.config.role_keys import role_keys_problem
from chorus.config.rules import RulesError, read_rules
from chorus.config.secret import NO_SECRET, SECRET_MIN_BYTES, choose_secret, derive_cluster_id
from chorus.config.variables import BY_NAME, DEFAULT_IMAGES
from chorus.license.shown import kind_of, shown

ALL_ADDRESSES = ("0.0.0.0", "::")
LOOPBACK = ("127.0.0.1", "::1")
# A leader is given up after missing at least this many heartbeats.
HEARTBEATS_PER_TIMEOUT = 3
# A lease must survive the choice of a new leader.
ELECTION_TIMEOUTS_PER_LEASE = 2
BOOT_ID_BYTES = 8


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads and checks everything; raises `SettingsError` with all problems at once. Touches no folder."""
    problems: list[str] = []
    values = read_values(environ, problems)
    license_id = values["CHORUS_LICENSE_ID"]
    is_dev = kind_of(license_id) == "development"
    secret = choose_secret(
        values["CHORUS_CLUSTER_SECRET"].encode("utf-8", "surrogateescape"), b"", license_id
    )
    if secret and len(secret) < SECRET_MIN_BYTES:
        problems.append(
            f"CHORUS_CLUSTER_SECRET: expected a secret of at least {SECRET_MIN_BYTES} bytes; it has "
            f"{len(secret)}. Make one with: openssl rand -hex 32"
        )
    if not secret and license_id and not values["CHORUS_KACHING_URL"]:
        problems.append(NO_SECRET)
    role_keys_file = _folder(values["CHORUS_ROLE_KEYS_FILE"])
    if role_keys_file and (problem := role_keys_problem(role_keys_file, values["CHORUS_AGENT_ROLE"])):
        problems.append(f"CHORUS_ROLE_KEYS_FILE: {problem}")
    _check_rules(values, problems)
    ai = _ai(values, problems)
    shhh_rules = _shhh_rules(values["CHORUS_SHHH_RULES_FILE"], problems)
    agent_id, p2p_port = values["CHORUS_AGENT_ID"], values["CHORUS_P2P_PORT"]
    data_dir = _folder(values["CHORUS_DATA_DIR"]) or default_data_dir(environ, agent_id, p2p_port)
    run_dir = _folder(values["CHORUS_RUN_DIR"]) or default_run_dir(environ, data_dir)
    if too_long := socket_path_problem(run_dir):
        problems.append(f"CHORUS_RUN_DIR: {too_long}")
    if problems:
        raise SettingsError(problems)
    p2p_hosts = values["CHORUS_P2P_HOST"] or (LOOPBACK if is_dev else ALL_ADDRESSES)
    return Settings(
        agent_id=agent_id,
        peer_id="",
        boot_id=secrets.token_hex(BOOT_ID_BYTES),
        version="",
        data_dir=data_dir,
        run_dir=run_dir,
        license_shown=shown(license_id),
        license_kind=kind_of(license_id),
        cluster_id=values["CHORUS_CLUSTER_ID"] or derive_cluster_id(license_id),
        cluster_secret=SecretBytes(secret),
        secret_derived=not values["CHORUS_CLUSTER_SECRET"],
        role_keys_file=role_keys_file,
        role_grants=values["CHORUS_ROLE_GRANTS"],
        network_open=any(not ipaddress.ip_address(host).is_loopback for host in p2p_hosts),
        p2p_hosts=p2p_hosts,
        p2p_port=p2p_port,
        api_host=values["CHORUS_API_HOST"],
        api_port=values["CHORUS_API_PORT"],
        health_port=values["CHORUS_HEALTH_PORT"],
        api_token=SecretStr(values["CHORUS_API_TOKEN"]),
        dht_enabled=values["CHORUS_DHT_ENABLED"],
        dht_cache_bytes=values["CHORUS_DHT_CACHE_SIZE"],
        blobs_bytes=values["CHORUS_BLOBS_SIZE"],
        bootstrap_peers=values["CHORUS_BOOTSTRAP_PEERS"],
        mdns_enabled=values["CHORUS_MDNS_ENABLED"],
        hmmm_enabled=values["CHORUS_HMMM_ENABLED"],
        ucxi_enabled=values["CHORUS_UCXI_ENABLED"],
        role=values["CHORUS_AGENT_ROLE"],
        expertise=values["CHORUS_AGENT_EXPERTISE"],
        reports_to=values["CHORUS_AGENT_REPORTS_TO"],
        specialization=values["CHORUS_AGENT_SPECIALIZATION"],
        max_tasks=values["CHORUS_AGENT_MAX_TASKS"],
        ai=ai,
        hmmm_period_s=values["CHORUS_HMMM_PERIOD"],
        hmmm_escalation_s=values["CHORUS_HMMM_ESCALATION"],
        heartbeat_s=values["CHORUS_ELECTION_HEARTBEAT"],
        election_timeout_s=values["CHORUS_ELECTION_TIMEOUT"],
        voters=values["CHORUS_VOTERS"],
        member_absence_s=values["CHORUS_MEMBER_ABSENCE"],
        rejoin=values["CHORUS_REJOIN"],
        join_wait_s=values["CHORUS_ELECTION_JOIN_WAIT"],
        leaderless=values["CHORUS_LEADERLESS"],
        task_lease_s=values["CHORUS_TASK_LEASE"],
        shutdown_timeout_s=values["CHORUS_SHUTDOWN_TIMEOUT"],
        retention_s=values["CHORUS_RETENTION"],
        sandbox=SandboxSettings(
            images=values["CHORUS_SANDBOX_IMAGES"] or DEFAULT_IMAGES,
            allow=values["CHORUS_SANDBOX_ALLOW"],
            cpus=values["CHORUS_SANDBOX_CPUS"],
            memory_bytes=values["CHORUS_SANDBOX_MEMORY"],
            pids=values["CHORUS_SANDBOX_PIDS"],
            disk_bytes=values["CHORUS_SANDBOX_DISK"],
            egress=values["CHORUS_SANDBOX_EGRESS"],
            warm=values["CHORUS_SANDBOX_WARM"],
        ),
        shhh_rules=shhh_rules,
        docker_host=values["DOCKER_HOST"],
        mode=values["CHORUS_MODE"],
        log_level=values["CHORUS_LOG_LEVEL"],
        log_format=values["CHORUS_LOG_FORMAT"],
    )


def _check_rules(values: dict[str, Any], problems: list[str]) -> None:
    heartbeat, timeout = values["CHORUS_ELECTION_HEARTBEAT"], values["CHORUS_ELECTION_TIMEOUT"]
    if _ms(timeout) < HEARTBEATS_PER_TIMEOUT * _ms(heartbeat):
        problems.append(
            f"CHORUS_ELECTION_TIMEOUT: expected at least {HEARTBEATS_PER_TIMEOUT} times "
            f"CHORUS_ELECTION_HEARTBEAT ({heartbeat:g}s); it is {timeout:g}s"
        )
    lease = values["CHORUS_TASK_LEASE"]
    if _ms(lease) < ELECTION_TIMEOUTS_PER_LEASE * _ms(timeout):
        problems.append(
            f"CHORUS_TASK_LEASE: expected at least {ELECTION_TIMEOUTS_PER_LEASE} times "
            f"CHORUS_ELECTION_TIMEOUT ({timeout:g}s); it is {lease:g}s"
        )
    ports: dict[int, str] = {}
    for name in ("CHORUS_P2P_PORT", "CHORUS_API_PORT", "CHORUS_HEALTH_PORT"):
        other = ports.setdefault(values[name], name)
        if values[name] and other != name:
            problems.append(f"{name}: expected a port of its own; {values[name]} is also {other}")


def _ai(values: dict[str, Any], problems: list[str]) -> AiSettings:
    ai = AiSettings(
        provider=values["CHORUS_AI_PROVIDER"],
        fallback=values["CHORUS_AI_FALLBACK"],
        ollama_endpoint=values["OLLAMA_ENDPOINT"],
        ollama_model=values["OLLAMA_MODEL"],
        resetdata_base_url=values["RESETDATA_BASE_URL"],
        resetdata_model=values["RESETDATA_MODEL"],
        resetdata_api_key=SecretStr(values["RESETDATA_API_KEY"]),
        max_steps=values["CHORUS_AI_MAX_STEPS"],
        max_tokens=values["CHORUS_AI_MAX_TOKENS"],
        max_usd=values["CHORUS_AI_MAX_USD"],
        timeout_s=values["CHORUS_AI_TIMEOUT"],
        context=values["CHORUS_AI_CONTEXT"],
        prices=values["CHORUS_AI_PRICES"],
        daily_usd=values["CHORUS_AI_DAILY_USD"],
        prompts_dir=Path(values["CHORUS_PROMPTS_DIR"]).expanduser().absolute(),
    )
    if ai.fallback != "none" and ai.fallback == ai.provider:
        problems.append(
            f"CHORUS_AI_FALLBACK: expected another provider than CHORUS_AI_PROVIDER, {ai.provider}"
        )
    if ai.provider == "none":
        if ai.fallback != "none":
            problems.append("CHORUS_AI_FALLBACK: expected none, as CHORUS_AI_PROVIDER is none")
        return ai
    if "resetdata" in ai.providers:
        for name in ("RESETDATA_BASE_URL", "RESETDATA_API_KEY", "RESETDATA_MODEL"):
            if not values[name]:
                problems.append(f"{name}: expected {BY_NAME[name].form}, as the provider resetdata is in use")
        for name in ("CHORUS_AI_DAILY_USD", "CHORUS_AI_MAX_USD"):
            if values[name] is not None and ai.resetdata_model not in ai.prices:
                problems.append(
                    f"CHORUS_AI_PRICES: expected a price for RESETDATA_MODEL, as {name} counts by it"
                )
    return ai


def _shhh_rules(path: str, problems: list[str]) -> str:
    if not path:
        return ""
    try:
        return read_rules(Path(path).expanduser())
    except RulesError as error:
        problems.extend(f"CHORUS_SHHH_RULES_FILE: {path}: {problem}" for problem in error.problems)
        return ""


def _ms(seconds: float) -> int:
    # Compared as written: 0.3 is less than 3 times 0.1 to a float.
    return round(seconds * 1000)


def _folder(text: str) -> Path | None:
    return Path(text).expanduser().absolute() if text else None

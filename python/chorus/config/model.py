"""The settings of one agent as a frozen model, and where its files lie. Reading them is `load`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr

from chorus.config.variables import BLOBS_BYTES
from chorus.license.shown import Kind


class SettingsError(Exception):
    """What is wrong with the settings: a sentence per problem, naming a variable and the form expected."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class SandboxSettings(BaseModel):
    """What a sandbox may be made of and how much it may use at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: dict[str, str]
    allow: tuple[str, ...]
    cpus: float
    memory_bytes: int
    pids: int
    disk_bytes: int
    egress: tuple[str, ...]
    warm: int


ProviderName = Literal["none", "ollama", "resetdata"]


class AiSettings(BaseModel):
    """Which models the agent works with, and how much of them it may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: ProviderName
    # Asked when the provider is away.
    fallback: ProviderName
    ollama_endpoint: str
    ollama_model: str
    resetdata_base_url: str
    resetdata_model: str
    resetdata_api_key: SecretStr
    # Of one run of a goal whose task asks for nothing else.
    max_steps: int
    max_tokens: int
    # None: no limit.
    max_usd: float | None
    # Of one call.
    timeout_s: float
    # Tokens of question and reply together; None: what is usual for the provider.
    context: int | None
    # Model to USD for a million tokens in, and out.
    prices: dict[str, tuple[float, float]]
    # What this agent may spend on a day (UTC); None: no limit.
    daily_usd: float | None
    prompts_dir: Path

    @property
    def providers(self) -> tuple[ProviderName, ...]:
        """Those in use, the first choice first; empty when there is none."""
        return tuple(name for name in (self.provider, self.fallback) if name != "none")

    def model_of(self, provider: ProviderName) -> str:
        """The model that is used at a provider."""
        return self.ollama_model if provider == "ollama" else self.resetdata_model


class Paths:
    """The files of an agent, in its data directory (kept) and its run directory (gone with the agent)."""

    def __init__(self, data_dir: Path, run_dir: Path) -> None:
        self.data = data_dir
        self.run = run_dir
        self.identity_key = data_dir / "identity.key"
        self.api_token = data_dir / "api-token"
        self.agent_json = data_dir / "agent.json"
        self.agent_lock = data_dir / "agent.lock"
        self.core = data_dir / "core"
        self.vote_file = self.core / "raft.redb"
        # Why the identity is to be replaced at the next start; what old identities left.
        self.identity_lost = data_dir / "identity.lost"
        self.replaced = data_dir / "replaced"
        # That this agent is to leave its mesh, and for what; what it takes along; the mesh it is to found.
        self.departure = data_dir / "departure.json"
        self.carried = data_dir / "carried.jsonl"
        self.founding_instruction = data_dir / "founding.json"
        self.table_db = data_dir / "table.sqlite"
        self.executor_db = data_dir / "executor.sqlite"
        self.curator_db = data_dir / "curator.sqlite"
        self.spending = data_dir / "spending.json"
        self.blobs = data_dir / "blobs"
        self.tasks = data_dir / "tasks"
        self.hub_socket = run_dir / "hub.sock"
        self.settings_json = run_dir / "settings.json"
        self.supervisord_conf = run_dir / "supervisord.conf"
        self.supervisor_socket = run_dir / "supervisor.sock"
        self.metrics_dir = run_dir / "metrics"
        self.crashes_json = run_dir / "crashes.json"
        self.journal_boot = run_dir / "journal.boot"

    def alive(self, generation: int) -> Path:
        """The FIFO that the parent holds open while the processes of this generation may live."""
        return self.run / f"alive.{generation}"


class Settings(BaseModel):
    """Every setting of one agent, resolved.

    `peer_id`, a made `agent_id` and `api_token` are empty until the parent has opened the data directory; the
    processes get them filled in, from `settings.json` in the run directory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent_id: str
    peer_id: str
    boot_id: str
    version: str
    # That this agent has a new identity since this start, and why.
    new_identity: str = ""
    # That this agent left a mesh at this start, and why.
    departed: str = ""
    # That mesh, when this agent is to join another one; "" otherwise.
    left_mesh: str = ""
    data_dir: Path
    run_dir: Path

    # The id itself ends at the gate: no process needs it, and whoever reads these settings cannot use it.
    license_shown: str
    license_kind: Kind
    # What the gate did before this start, for the metrics.
    license_checks: int = 0
    license_failures: int = 0
    cluster_id: str
    # Bytes, not text: derived secrets are raw, and foreign programs derive keys from the same bytes.
    cluster_secret: SecretBytes
    # Whether the secret follows from the id of a development licence, so that who knows the id has it.
    secret_derived: bool
    # Where the keys of the roles come from, when not from the cluster secret.
    role_keys_file: Path | None
    # Who may read which role besides those that may anyway.
    role_grants: tuple[tuple[str, str], ...]
    # Whether P2P listens beyond loopback.
    network_open: bool

    p2p_hosts: tuple[str, ...]
    p2p_port: int
    api_host: str
    api_port: int
    health_port: int
    api_token: SecretStr

    dht_enabled: bool
    dht_cache_bytes: int
    # What sources and inputs of tasks may take of the disk.
    blobs_bytes: int = BLOBS_BYTES
    bootstrap_peers: tuple[str, ...]
    mdns_enabled: bool
    hmmm_enabled: bool
    ucxi_enabled: bool

    role: str
    expertise: tuple[str, ...]
    reports_to: str
    specialization: str
    max_tasks: int
    ai: AiSettings
    # How long a plan waits for objections, and for a person's answer.
    hmmm_period_s: float = 30.0
    hmmm_escalation_s: float = 600.0

    heartbeat_s: float
    election_timeout_s: float
    voters: int
    member_absence_s: float
    rejoin: bool = False
    join_wait_s: float
    leaderless: Literal["run", "wait"]
    task_lease_s: float
    shutdown_timeout_s: float
    retention_s: float

    sandbox: SandboxSettings
    # Rules and exceptions of the operator's, as the core reads them; empty: none.
    shhh_rules: str = ""
    docker_host: str | None

    mode: Literal["agent"]
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "json", "text"]

    @property
    def paths(self) -> Paths:
        """Where this agent's files lie."""
        return Paths(self.data_dir, self.run_dir)

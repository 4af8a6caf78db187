"""The settings of one agent, whole: all groups, and what a start finds out. Reading them is `load`'s."""

from __future__ import annotations

from dataclasses import dataclass, field

from chorus.config.groups.agent import AgentSettings
from chorus.config.groups.assignment import Assignment
from chorus.config.groups.cluster import ClusterSettings
from chorus.config.groups.memory import MemorySettings
from chorus.config.groups.mesh import TimingSettings
from chorus.config.groups.models import AiSettings
from chorus.config.groups.network import NetworkSettings
from chorus.config.groups.sandbox import SandboxSettings
from chorus.config.groups.services import ServiceSettings
from chorus.config.paths import Paths
from chorus.license.shown import Kind


class SettingsError(Exception):
    """What is wrong with the settings: a sentence per problem, naming a variable and the form expected."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Settings(
    AgentSettings,
    NetworkSettings,
    ClusterSettings,
    TimingSettings,
    MemorySettings,
    ServiceSettings,
):
    """Every setting of one agent, resolved.

    `peer_id`, a made `agent_id` and `api_token` are empty until the parent has opened the data directory; the
    processes get them filled in, from `settings.json` in the run directory.
    """

    # As it is when a process starts; what counts later, `chorus.process.Assignments` tells.
    assignment: Assignment = field(default_factory=Assignment)
    sandbox: SandboxSettings
    ai: AiSettings

    peer_id: str = ""
    boot_id: str
    version: str = ""
    # That this agent has a new identity since this start, and why.
    new_identity: str = ""
    # That this agent left a mesh at this start, and why.
    departed: str = ""
    # That mesh, when this agent is to join another one; "" otherwise.
    left_mesh: str = ""
    license_kind: Kind
    # What the gate did before this start, for the metrics.
    license_checks: int = 0
    license_failures: int = 0
    # Whether the secret follows from the id of a development licence, so that who knows the id has it.
    secret_derived: bool
    # Whether P2P listens beyond loopback.
    network_open: bool

    @property
    def paths(self) -> Paths:
        """Where this agent's files lie."""
        return Paths(self.data_dir, self.run_dir)

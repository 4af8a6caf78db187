"""Every environment variable the agent knows, out of the declarations in `groups`."""

from __future__ import annotations

from typing import Final

from chorus.config.groups.agent import AgentSettings
from chorus.config.groups.assignment import Assignment
from chorus.config.groups.cluster import ClusterSettings
from chorus.config.groups.memory import MemorySettings
from chorus.config.groups.mesh import TimingSettings
from chorus.config.groups.models import AiSettings
from chorus.config.groups.network import NetworkSettings
from chorus.config.groups.sandbox import SandboxSettings
from chorus.config.groups.services import ServiceSettings
from chorus.config.setting import Group, Setting, declared

# In the order in which people read about them.
GROUPS: Final[tuple[type[Group], ...]] = (
    AgentSettings,
    NetworkSettings,
    ClusterSettings,
    Assignment,
    TimingSettings,
    SandboxSettings,
    AiSettings,
    MemorySettings,
    ServiceSettings,
)

VARIABLES: Final[tuple[Setting, ...]] = tuple(setting for group in GROUPS for _, setting in declared(group))
BY_NAME: Final[dict[str, Setting]] = {variable.name: variable for variable in VARIABLES}
SECRETS: Final = frozenset(variable.name for variable in VARIABLES if variable.secret)

# Read by other programs of the package, or set for the agent's own processes.
ELSEWHERE: Final = frozenset(
    {"CHORUS_API_URL", "CHORUS_ALIVE", "CHORUS_EVENTS", "CHORUS_CACHE", "CHORUS_CONTEXT", "CHORUS_BIN"}
)

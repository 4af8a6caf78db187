"""Settings of the agent, as every process has them. Reading them from an environment is `load`'s, which the
parent alone needs.
"""

from chorus.config.exposure import exposure
from chorus.config.groups.assignment import Assignment
from chorus.config.groups.models import AiSettings
from chorus.config.groups.sandbox import SandboxSettings
from chorus.config.mesh import MeshSettings
from chorus.config.model import Settings, SettingsError
from chorus.config.paths import Paths
from chorus.config.run import load_run_settings, save_run_settings

__all__ = [
    "AiSettings",
    "Assignment",
    "MeshSettings",
    "Paths",
    "SandboxSettings",
    "Settings",
    "SettingsError",
    "exposure",
    "load_run_settings",
    "save_run_settings",
]

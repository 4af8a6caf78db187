"""Settings of the agent: read from the environment, checked, handed to every process as one frozen model."""

from chorus.config.exposure import exposure
from chorus.config.groups.assignment import Assignment
from chorus.config.groups.models import AiSettings
from chorus.config.groups.sandbox import SandboxSettings
from chorus.config.load import Boot, boot_settings, complete, given_secret, load_settings, timing_of
from chorus.config.mesh import MeshSettings
from chorus.config.model import Settings, SettingsError
from chorus.config.paths import Paths
from chorus.config.run import load_run_settings, save_run_settings

__all__ = [
    "AiSettings",
    "Assignment",
    "Boot",
    "MeshSettings",
    "Paths",
    "SandboxSettings",
    "Settings",
    "SettingsError",
    "boot_settings",
    "complete",
    "exposure",
    "given_secret",
    "load_run_settings",
    "load_settings",
    "save_run_settings",
    "timing_of",
]

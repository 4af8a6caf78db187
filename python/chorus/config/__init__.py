"""Settings of the agent: read from the environment, checked, handed to every process as one frozen model."""

from chorus.config.exposure import exposure
from chorus.config.load import load_settings
from chorus.config.mesh import MeshSettings
from chorus.config.model import AiSettings, Paths, SandboxSettings, Settings, SettingsError
from chorus.config.run import load_run_settings, save_run_settings

__all__ = [
    "AiSettings",
    "MeshSettings",
    "Paths",
    "SandboxSettings",
    "Settings",
    "SettingsError",
    "exposure",
    "load_run_settings",
    "load_settings",
    "save_run_settings",
]

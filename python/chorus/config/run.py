"""The resolved settings on their way from the parent to the processes: `settings.json` in the run directory.

The one place where secrets are written in the clear, in a file that only the agent's user can read.
"""

from __future__ import annotations

from pathlib import Path

from chorus.config.files import write_private
from chorus.config.model import Settings
from chorus.config.paths import Paths
from chorus.config.setting import WITH_SECRETS


def save_run_settings(settings: Settings) -> None:
    """Writes the settings for the processes, replacing older ones in one step."""
    write_private(settings.paths.settings_json, settings.model_dump_json(context=WITH_SECRETS))


def load_run_settings(run_dir: Path) -> Settings:
    """Reads what the parent wrote into this run directory."""
    return Settings.model_validate_json(Paths(run_dir, run_dir).settings_json.read_bytes())

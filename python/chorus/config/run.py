"""The resolved settings on their way from the parent to the processes: `settings.json` in the run directory.

The one place where secrets are written in the clear, in a file that only the agent's user can read.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from chorus.config.files import write_private
from chorus.config.model import Settings
from chorus.config.paths import Paths
from chorus.config.values import as_json, from_json


def save_run_settings(settings: Settings) -> None:
    """Writes the settings for the processes, replacing older ones in one step."""
    write_private(settings.paths.settings_json, orjson.dumps(as_json(settings, secrets=True)).decode())


def load_run_settings(run_dir: Path) -> Settings:
    """Reads what the parent wrote into this run directory. Raises OSError, and ValueError naming a field."""
    return from_json(Settings, orjson.loads(Paths(run_dir, run_dir).settings_json.read_bytes()))
